"""What happens one after the other, and who asks for what meanwhile.

Requests of the quick model find room everywhere. Those of the paced one come faster than the cloud
alone can answer, and while the box is away or slow they come in rounds: the same arrivals once for
whoever routing chooses, once for the cloud alone, and where there is a box, once for the box alone.
The latter say what is left, at the same time, on the same machine.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from cluster.home import Home
from load.chaos.box import SITE, BoxError
from load.chaos.head import EDGE_TARGET
from load.routing.faults import models
from load.routing.faults.stage import Stage
from load.routing.faults.traffic import Kind, Seen, Traffic

DETECTED_S: Final = 2.0
BACK_S: Final = 90.0
READY_S: Final = 60.0
WARM_S: Final = 5.0
SLOWER: Final = 3.0
QUICK_SHARE: Final = 0.2  # of a phase with rounds, that the quick model has first

QUICK: Final = "quick"
ANY: Final = "any"
CLOUD: Final = "cloud"
EDGE: Final = "edge"

WHILE_AWAY: Final = (ANY, CLOUD)
WHILE_SLOW: Final = (ANY, CLOUD, EDGE)

BEFORE: Final = "before"
CALM: Final = "calm"
GOING: Final = "going away"
AWAY: Final = "away"
SLOW: Final = "slow"


@dataclass(frozen=True, slots=True)
class Plan:
    """Seconds of each phase, and of a slice of a round.

    rate, paced_rate: requests of the quick and of the paced model a second; late_ms: their
    deadline; cloud_s, device_s: what a run takes in the cloud, and a frame on the box's device.
    """

    calm_s: float
    partition_s: float
    slow_s: float
    slice_s: float
    rate: float
    paced_rate: float
    late_ms: int
    cloud_s: float
    device_s: float
    seed: int

    def kinds(self) -> dict[str, Kind]:
        """Return what is sent, by name."""
        quick, paced = models.payload(models.QUICK), models.payload(models.PACED)
        return {
            QUICK: Kind(quick, self.rate, self.late_ms),
            ANY: Kind(paced, self.paced_rate, self.late_ms),
            CLOUD: Kind(paced, self.paced_rate, self.late_ms, "cloud"),
            EDGE: Kind(paced, self.paced_rate, self.late_ms, "edge"),
        }

    def parts(self, seconds: float, kinds: Sequence[str]) -> tuple[float, int]:
        """Return the quick model's seconds of a phase, and the rounds in the rest of it.

        What no whole round fits into is the quick model's, too.
        """
        round_s = len(kinds) * self.slice_s
        rounds = int((1.0 - QUICK_SHARE) * seconds / round_s)
        return seconds - rounds * round_s, rounds

    @property
    def has_rounds(self) -> bool:
        """False where a phase is too short to measure what is left."""
        parts = (
            self.parts(self.partition_s - DETECTED_S, WHILE_AWAY),
            self.parts(self.slow_s, WHILE_SLOW),
        )
        return all(rounds for _, rounds in parts)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a phase with one kind of request. busy: share of the machine's processors."""

    phase: str
    kind: str
    round: int
    since: float
    until: float
    busy: float


@dataclass(frozen=True, slots=True)
class Send:
    """An attempt at the box, by the gateway's request log: when, and what became of it."""

    at: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Run:
    """What was seen. returned_s: until the box answered again."""

    pieces: Sequence[Piece]
    seen: Sequence[Seen]
    sends: Sequence[Send]
    gone_at: float
    back_at: float
    returned_s: float


async def run(plan: Plan, stage: Stage) -> Run:
    """Go through the phases. Raises BoxError when cloud or box never answer."""
    traffic = Traffic(stage.access, SITE, plan.kinds())
    pieces: list[Piece] = []
    seeds = plan.seed * 1_000

    async def send(phase: str, kind: str, seconds: float, number: int = 0) -> None:
        psutil.cpu_percent()
        since, until = await traffic.send(kind, seconds, seeds + number)
        pieces.append(Piece(phase, kind, number, since, until, psutil.cpu_percent() / 100))

    async def rounds(phase: str, kinds: Sequence[str], count: int) -> None:
        for number in range(count):
            turn = number % len(kinds)
            for kind in (*kinds[turn:], *kinds[:turn]):  # nobody is always the first
                await send(phase, kind, plan.slice_s, number)

    try:
        await _answers(traffic, CLOUD)
        await traffic.send(ANY, WARM_S, seeds)
        _say(f"the box has not come yet: {2 * plan.slice_s:g} s")
        await rounds(BEFORE, (ANY,), 2)
        await stage.come()
        await _answers(traffic, EDGE)
        await traffic.send(QUICK, WARM_S, seeds)
        _say(f"calm for {plan.calm_s:g} s")
        await send(CALM, QUICK, plan.calm_s)
        await rounds(CALM, (ANY, EDGE), 1)

        _say(f"the box is away for {plan.partition_s:g} s ({stage.how})")
        gone_at = time.time()
        await stage.go_away()
        await send(GOING, QUICK, gone_at + DETECTED_S - time.time())
        quick_s, count = plan.parts(plan.partition_s - DETECTED_S, WHILE_AWAY)
        await send(AWAY, QUICK, quick_s)
        await rounds(AWAY, WHILE_AWAY, count)
        back_at = time.time()
        await stage.come_back()
        returned_s = await _returned(traffic, back_at)
        _say(f"back after {returned_s:.1f} s")
        await send("back", QUICK, WARM_S)

        _say(f"the device is {SLOWER:g} times slower for {plan.slow_s:g} s")
        stage.device.slow(SLOWER)
        quick_s, count = plan.parts(plan.slow_s, WHILE_SLOW)
        await send(SLOW, QUICK, quick_s)
        await rounds(SLOW, WHILE_SLOW, count)
    finally:
        await traffic.finish()
    await asyncio.sleep(2.0)  # the request log is written twice a second
    sends = _sends(stage.head.home)
    return Run(pieces, traffic.seen, sends, gone_at, back_at, returned_s)


async def _answers(traffic: Traffic, kind: str) -> None:
    """Wait until requests of a kind are answered. Raises BoxError when they never are."""
    until = time.monotonic() + READY_S
    while (found := await traffic.ask(kind)).status != 200:
        if time.monotonic() > until:
            raise BoxError(f"'{kind}' is answered with status {found.status} only")
        await asyncio.sleep(0.1)


async def _returned(traffic: Traffic, since: float) -> float:
    """Send until a request is answered by the box; return after how many seconds, BACK_S at most.

    It is asked for by those who may go anywhere: the box is used again, not only there.
    """
    number = 0
    while time.time() - since < BACK_S:
        await traffic.send(QUICK, 0.5, number := number + 1)
        back = [s for s in traffic.seen[-200:] if s.at >= since and s.target == EDGE_TARGET]
        if back:
            return min(each.at + each.taken_s for each in back) - since
    return BACK_S


def _sends(home: Home) -> list[Send]:
    """Return what was sent to the box."""
    lines = [
        json.loads(text)
        for path in sorted(home.requests.glob("*.jsonl"))
        for text in path.read_text("utf-8").splitlines()
    ]
    return [
        Send(found["at"], found["outcome"])
        for found in lines
        if found["attempt"] and found["target"] == EDGE_TARGET
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
