"""Runs attacks over several connections and judges what comes back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from load.fuzz.grpc_attacks import grpc_attack
from load.fuzz.rest_attacks import RestAttack, rest_attack
from load.fuzz.seeds import Seed
from load.fuzz.senders import CLOSED, HANG, GrpcSender, RestSender

ALLOWED_5XX: Final = ("503", "504")
BROKEN_CODES: Final = ("INTERNAL", "UNKNOWN", "DATA_LOSS", "UNANSWERED")
GRPC_SHARE: Final = 0.3


@dataclass(frozen=True, slots=True)
class Target:
    """rest: host:port; grpc: address or None; credentials: headers, and metadata for gRPC."""

    rest: str
    grpc: str | None
    credentials: Mapping[str, str]
    seeds: Sequence[Seed]


@dataclass(frozen=True, slots=True)
class Violation:
    number: int
    kind: str
    outcome: str


@dataclass(slots=True)
class Findings:
    """outcomes: by status; kinds: by kind of attack, then by status."""

    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)

    def add(self, number: int, kind: str, outcome: str, *, may_close: bool) -> None:
        self.outcomes[outcome] += 1
        self.kinds.setdefault(kind, Counter())[outcome] += 1
        if is_violation(outcome, may_close=may_close):
            self.violations.append(Violation(number, kind, outcome))


def is_violation(outcome: str, *, may_close: bool) -> bool:
    """Tell whether a server that is sound may answer so."""
    if outcome == HANG or outcome in BROKEN_CODES:
        return True
    if outcome == CLOSED:
        return not may_close
    return outcome.startswith("5") and outcome not in ALLOWED_5XX


async def attack(
    target: Target,
    seed: int,
    numbers: Sequence[int],
    connections: int,
    patience_s: float,
    progress: Callable[[int], None] = lambda _: None,
) -> Findings:
    """Send the attacks of these numbers; every worker has a connection of each kind.

    progress: told each number when its turn has come.
    """
    findings = Findings()
    waiting = _told(numbers, progress)
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_work(target, seed, waiting, findings, patience_s))
    return findings


def _told(numbers: Sequence[int], progress: Callable[[int], None]) -> Iterator[int]:
    for number in numbers:
        progress(number)
        yield number


async def _work(
    target: Target, seed: int, numbers: Iterator[int], findings: Findings, patience_s: float
) -> None:
    host, _, port = target.rest.rpartition(":")
    rest = RestSender(host, int(port), patience_s)
    grpc = GrpcSender(target.grpc, target.credentials, patience_s) if target.grpc else None
    try:
        for number in numbers:
            rng = Random(f"{seed}/{number}")  # noqa: S311 (nothing here is secret)
            if grpc is not None and rng.random() < GRPC_SHARE:
                drawn = grpc_attack(rng, target.seeds)
                findings.add(number, drawn.kind, await grpc.send(drawn), may_close=False)
                continue
            bent: RestAttack = rest_attack(rng, target.seeds, target.rest, target.credentials)
            outcome = await rest.send(bent)
            findings.add(number, bent.kind, outcome, may_close=bent.may_close)
    finally:
        await rest.close()
        if grpc is not None:
            await grpc.close()
