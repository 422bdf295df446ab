"""A short run of the fuzz driver; `python -m load.fuzz` runs it long against a live gateway."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from load.fuzz.grpc_attacks import grpc_attack
from load.fuzz.rest_attacks import BENDS, rest_attack
from load.fuzz.run import Findings, Target, attack, is_violation
from load.fuzz.seeds import Seed, SeedTensor, find_seeds
from tests.contract.live import LiveServer

SEED = 20261125
ATTACKS = 1000
SEEDS = [Seed("m", (SeedTensor("x", "FP32", (2, 3)), SeedTensor("y", "BYTES", (1,))))]


def test_malformed_requests_are_refused_and_leave_the_server_unharmed(server: LiveServer) -> None:
    ready = find_seeds(f"http://{server.rest}", server.bearer)
    seeds = [seed for seed in ready if seed.model not in ("slow", "log")]  # log(0) is infinite
    target = Target(server.rest, server.grpc, server.bearer, seeds)
    findings = asyncio.run(attack(target, SEED, range(ATTACKS), connections=4, patience_s=15.0))
    assert not findings.violations, f"seed {SEED}: {findings.violations[:5]}"
    assert findings.outcomes.total() == ATTACKS
    assert {"200", "400", "404", "413", "OK", "INVALID_ARGUMENT"} <= set(findings.outcomes)
    assert set(findings.kinds["rest nothing bent"]) == {"200"}
    assert set(findings.kinds["grpc nothing bent"]) <= {"OK", "INVALID_ARGUMENT", "UNAUTHENTICATED"}
    assert server.budget.used == 0
    assert server.busy() == 0


def test_the_same_number_is_the_same_attack() -> None:
    for number in range(50):
        again = [rest_attack(Random(f"1/{number}"), SEEDS, "h", {}) for _ in range(2)]
        assert again[0] == again[1]
        messages = [grpc_attack(Random(f"1/{number}"), SEEDS) for _ in range(2)]
        assert messages[0] == messages[1]


def test_every_way_to_bend_a_request_is_drawn() -> None:
    drawn = {rest_attack(Random(f"1/{n}"), SEEDS, "h", {}).kind for n in range(1000)}
    assert drawn == {f"rest {kind}" for kind in BENDS}


@pytest.mark.parametrize(
    ("outcome", "may_close", "wrong"),
    [
        ("200", False, False),
        ("400", False, False),
        ("503", False, False),
        ("504", False, False),
        ("500", False, True),
        ("502", False, True),
        ("hang", True, True),
        ("closed", True, False),
        ("closed", False, True),
        ("INTERNAL", False, True),
        ("UNANSWERED", False, True),
        ("UNAVAILABLE", False, False),
    ],
)
def test_what_counts_as_a_violation(outcome: str, may_close: bool, wrong: bool) -> None:
    assert is_violation(outcome, may_close=may_close) is wrong
    findings = Findings()
    findings.add(3, "k", outcome, may_close=may_close)
    assert [v.number for v in findings.violations] == ([3] if wrong else [])
