"""What a what-if found, as values: for the table, the JSON document and the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from load.simulator.comparison import AS_RECORDED, Replayed
from load.simulator.recording import DEFAULT_SLACK_S, Recording
from load.simulator.scenario import Scenario

Headings = Sequence[str]


@dataclass(frozen=True)
class Fidelity:
    """What was recorded beside what the same policy did on the same fleet in the simulator."""

    recorded: Replayed
    simulated: Replayed

    @property
    def p50(self) -> float:
        """Simulated over recorded."""
        return self.simulated.p50_s / self.recorded.p50_s

    @property
    def p99(self) -> float:
        """Simulated over recorded."""
        return self.simulated.p99_s / self.recorded.p99_s

    def __str__(self) -> str:
        def pair(recorded: float, simulated: float) -> str:
            return f"{1e3 * recorded:.3g} ms recorded, {1e3 * simulated:.3g} ms simulated"

        one, two = self.recorded, self.simulated
        return (
            f"p50 {pair(one.p50_s, two.p50_s)} (x {self.p50:.2f}); "
            f"p99 {pair(one.p99_s, two.p99_s)} (x {self.p99:.2f}); "
            f"misses {one.misses:.2%} and {two.misses:.2%}"
        )

    def document(self) -> dict[str, Any]:
        return {
            "p50_ratio": self.p50,
            "p99_ratio": self.p99,
            "recorded": self.recorded.document(),
            "simulated": self.simulated.document(),
        }


@dataclass(frozen=True, eq=False)
class Result:
    """All of it. requests, duration_s: of what was replayed; traffic: as it was recorded."""

    scenario: Scenario
    replayed: Sequence[Replayed]
    fidelity: Fidelity | None
    requests: int
    duration_s: float
    seed: int
    command: str
    made_at: str

    @property
    def recording(self) -> Recording:
        return self.scenario.recording

    def answer(self) -> str:
        """Return the one sentence that a reader came for."""
        base = next((one for one in self.replayed if one.is_in_force), None)
        estimate = self.scenario.estimate
        unseen = sorted(estimate.unseen()) if estimate is not None else []
        but = f" Unknown: {', '.join(unseen)} where it never ran." if unseen else ""
        if base is None or len(self.replayed) < 2:
            base = base or self.replayed[0]
            return (
                f"Under {base.policy}: {base.misses:.2%} of requests missed their deadline, "
                f"p99 {_ms(base.p99_s)}, {_usd(base.usd_per_1000)} for 1,000 requests.{but}"
            )
        others = [one for one in self.replayed if one is not base]
        found = [f"{one.policy}: {_change(base, one)}" for one in others]
        return (
            f"What runs now ({base.policy}) costs {_usd(base.usd_per_1000)} for 1,000 requests, "
            f"misses {base.misses:.2%}, p99 {_ms(base.p99_s)}. Instead, "
            + "; ".join(found)
            + "."
            + but
        )

    def table(self) -> tuple[Headings, list[list[str]]]:
        """Return headings and rows, one for each policy."""
        headings = [
            "policy", "requests", "p50 ms", "p95 ms", "p99 ms", "misses %", "refused %", "cost $",
            "$ / 1,000", "share by place",
        ]  # fmt: skip
        return headings, [_row(one) for one in self.replayed]

    def assumptions(self) -> Iterator[str]:
        """Yield what was taken for given, in words."""
        scenario, recording = self.scenario, self.recording
        yield f"The fleet is that of {scenario.source}."
        if scenario.estimate is not None:
            yield (
                "What places take was measured from requests that found them empty, and so waited "
                "for nobody; how many they do at once, from the pace of their answers when most "
                "were waiting."
            )
            yield from _doubts(scenario)
        if scenario.left_out:
            models = ", ".join(scenario.estimate.unserved) if scenario.estimate else ""
            yield (
                f"{scenario.left_out:,} requests of models that were never answered are left out: "
                f"{models}."
            )
        without = sum(request.slack_s is None for request in recording.requests)
        if without:
            shares = ", ".join(f"{one.share:g} : {one.ms:g} ms" for one in scenario.fleet.deadlines)
            yield f"{without:,} requests had no deadline; they were given one, by shares {shares}."
        loose = sum((r.slack_s or 0.0) >= DEFAULT_SLACK_S for r in recording.requests)
        if loose * 2 > len(recording.requests):
            yield (
                f"{loose / len(recording.requests):.0%} of the requests have {DEFAULT_SLACK_S:g} s "
                "or more, as callers have who set no deadline: misses say little here."
            )
        changes = scenario.changes
        cut_off = max((one.lost for one in self.replayed), default=0.0)
        if changes.cuts and cut_off:
            yield (
                f"Up to {cut_off:.2%} of the requests were lost to cuts, most of them of "
                "callers who did not reach a gateway; what an edge box does for its own site "
                "meanwhile is not in the replay."
            )
        if changes.load != 1.0:
            yield (
                f"There are {changes.load:g} requests for each recorded one; copies come within "
                "5 s of their original."
            )
        if changes.speed != 1.0:
            yield f"Time passes {changes.speed:g} times as fast for arrivals, not for work."
        if not any(place.usd_per_hour or place.usd_per_gb for place in scenario.fleet.places):
            yield "No prices are known, so that cost says nothing and `cost` has nothing to save."

    def limits(self) -> Iterator[str]:
        """Yield what a replay cannot say."""
        yield "Callers send what they sent then: nobody gives up, or asks again, if it is slow."
        yield (
            "Queues serve by deadline alone; the engine also knows priorities. Models at one place "
            "take turns there. Caches, degraded rungs and the front door's bounds are not modelled."
        )
        yield (
            "Load that a place never had is judged from load that it had; policies are compared by "
            "one seed, so that differences of a few percent mean nothing."
        )
        yield (
            "A tier that a caller insisted on is kept where it was the reason of the choice; "
            "tenants' and residency rules are not in the log, so replays ignore them."
        )

    def document(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        recording = self.recording
        return {
            "made_at": self.made_at,
            "command": self.command,
            "seed": self.seed,
            "trace": {
                "name": recording.name,
                "files": list(recording.files),
                "requests": len(recording.requests),
                "duration_s": recording.duration_s,
                "retries": recording.retries,
                "broken_lines": [str(problem) for problem in recording.problems],
            },
            "requests": self.requests,
            "duration_s": self.duration_s,
            "answer": self.answer(),
            "assumptions": list(self.assumptions()),
            "limits": list(self.limits()),
            "fleet": self.scenario.changed().model_dump(mode="json"),
            "estimate": None
            if self.scenario.estimate is None
            else [asdict(place) for place in self.scenario.estimate.places],
            "fidelity": None if self.fidelity is None else self.fidelity.document(),
            "policies": [one.document() for one in self.replayed],
        }


def _doubts(scenario: Scenario) -> Iterator[str]:
    assert scenario.estimate is not None  # noqa: S101 (the caller looked)
    places = scenario.estimate.places
    for model, names in scenario.estimate.unseen().items():
        yield (
            f"Model '{model}' never ran at {', '.join(names)}: no policy sends it there here, "
            "though in truth one might. Where it may run there, write its service_ms into "
            "fleet.yaml and replay with --fleet."
        )
    crowded = [place.name for place in places if place.crowded]
    if crowded:
        yield (
            f"{', '.join(crowded)}: too few requests found it empty; those that found the fewest "
            "stand for them, so that times there are too long rather than too short."
        )
    idle = [place.name for place in places if place.lanes is None]
    if idle:
        yield (
            f"{', '.join(idle)}: never busy enough to see how much at once is possible; one "
            "request at a time is assumed, which is the least."
        )
    untold = [place.name for place in places if place.way_s is None]
    if untold:
        yield (
            f"{', '.join(untold)}: time on the way and time of work could not be told apart; all "
            "of it counts as work, so that these places seem to carry less than they do."
        )


def _row(one: Replayed) -> list[str]:
    shares = sorted(one.share.items(), key=lambda item: -item[1])
    name = (
        f"{one.policy} (what runs now)"
        if one.is_in_force and one.policy != AS_RECORDED
        else (one.policy)
    )
    return [
        name,
        f"{one.requests:,}",
        *(f"{1e3 * value:.4g}" for value in (one.p50_s, one.p95_s, one.p99_s)),
        f"{100 * one.misses:.2f}",
        f"{100 * (one.refused + one.dropped + one.lost):.2f}",
        f"{one.usd:.4g}",
        f"{one.usd_per_1000:.4g}",
        ", ".join(f"{place} {share:.0%}" for place, share in shares if share >= 0.005) or "none",
    ]


def _change(base: Replayed, other: Replayed) -> str:
    points = 100 * (other.misses - base.misses)
    parts = [f"misses {points:+.2f} points", f"p99 {_ms(other.p99_s)}"]
    if base.usd:
        parts.insert(0, f"cost {100 * (other.usd / base.usd - 1):+.0f} %")
    return ", ".join(parts)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def _usd(dollars: float) -> str:
    return f"{dollars:.3g} $"
