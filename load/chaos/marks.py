"""What must hold in a fault run, and what was found of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from load.bench.stats import percentile
from load.chaos.answers import Kind
from load.chaos.ledger import latencies_ms
from load.chaos.models import LONE, LONE_STALE
from load.chaos.rungs import flaps, most_within
from load.chaos.scene import BACK_S, REJOIN_S, Event, Scene
from load.chaos.schedule import ACCELERATOR

AVAILABILITY: Final = 0.9995
KILL_P99_MS: Final = 300.0
FLAPS_A_MINUTE: Final = 1
BOX_READY_S: Final = 30.0
# Faults that take the device away for so long that somebody notices.
TAKES_AWAY: Final = frozenset(
    {"kill", "kill-twice", "vanish", "heat", "mismatch", "open-refused", "hang-reset"}
)


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that must hold."""

    what: str
    found: str
    holds: bool


def judge(scene: Scene, left: Sequence[str]) -> list[Mark]:
    """Return every mark that this run has something to say about. left: behind, after its end."""
    return [
        *_answers(scene),
        *_accelerator(scene),
        *_box(scene),
        *_cluster(scene),
        Mark("nothing is left behind", "; ".join(left) or "nothing", not left),
    ]


def _answers(scene: Scene) -> Iterator[Mark]:
    ledger, total = scene.ledger, len(scene.ledger.ended)
    for kind, what in (
        (Kind.WRONG, "no answer is wrong"),
        (Kind.LEAK, "no output of a failed job comes out"),
        (Kind.LOST, "no request is lost"),
    ):
        found = ledger.of(kind)
        example = f": {found[0].stream}, {found[0].detail}" if found else ""
        yield Mark(what, f"{len(found)} of {total}{example}"[:300], not found)
    silent = ledger.without_reason()
    yield Mark("every refusal says why", f"{len(silent)} without a code", not silent)
    counts = ledger.counts()
    yield Mark(
        f"the site is answered ≥ {AVAILABILITY:.2%}",
        f"{counts.availability:.4%}: {counts.right} right, {counts.refused} refused, "
        f"{counts.late} late ({counts.off} while the box was off, {counts.excluded} excluded)",
        counts.right > 0 and counts.availability >= AVAILABILITY,
    )


def _accelerator(scene: Scene) -> Iterator[Mark]:
    strikes = [e for e in scene.found("struck") if e.layer == ACCELERATOR]
    if not strikes:
        return
    after = kill_delays_ms(scene)
    if after:
        p99 = percentile(after, 0.99)
        yield Mark(
            f"killed host: answered within {KILL_P99_MS:.0f} ms (p99)",
            f"{p99:.0f} ms over {len(after)} requests under way, most {after[-1]:.0f} ms",
            p99 <= KILL_P99_MS,
        )
    yield from _backs(scene)
    found = flaps(scene.watch.history.changes, scene.strikes)
    most = most_within(found, 60.0)
    yield Mark(
        f"at most {FLAPS_A_MINUTE} flap a minute",
        f"{most} in the worst minute, {len(found)} in all",
        most <= FLAPS_A_MINUTE,
    )
    if TAKES_AWAY & {e.kind for e in strikes}:
        bereft = scene.ledger.bereft()
        refused, stale = bereft.get(f"{LONE} refused", 0), bereft.get(f"{LONE_STALE} stale", 0)
        yield Mark(
            "without device and processor: refused with a reason, or stale where that is allowed",
            f"{refused} refused, {stale} stale",
            refused > 0 and stale > 0,
        )


def _backs(scene: Scene) -> Iterator[Mark]:
    backs = [e for e in scene.found("back") if e.layer == ACCELERATOR]
    if not backs:
        return
    late = [e for e in backs if not e.holds]
    times = sorted(e.took_s for e in backs if e.took_s is not None)
    found = f"{len(backs) - len(late)} of {len(backs)}"
    if times:
        found += f", median {percentile(times, 0.5):.1f} s, most {times[-1]:.1f} s"
    if late:
        found += "; late: " + "; ".join(f"{e.kind} {_seconds(e)}" for e in late[:5])
    yield Mark(f"back on the top rung within {BACK_S:.0f} s", found, not late)


def _box(scene: Scene) -> Iterator[Mark]:
    ready = scene.found("ready")
    if ready:
        most = max(e.took_s or 0.0 for e in ready)
        yield Mark(
            f"ready within {BOX_READY_S:.0f} s of every start",
            f"{len(ready)} starts, most {most:.1f} s",
            most <= BOX_READY_S,
        )
    yield from _of_events(scene, "state", "what was loaded by name is so after a power cut")
    yield from _of_events(scene, "says so", "what is wrong is said, and the rest is served")
    yield from _of_events(scene, "refused", "a full disk refuses a package")
    yield from _of_events(scene, "recovered", "with room again changes are taken")
    yield from _of_events(scene, "healed", "a mended file is served again")
    yield from _of_events(scene, "died", "the runtime does not end by itself", is_bad=True)
    yield from _of_events(scene, "failed", "every fault could be carried out", is_bad=True)


def _cluster(scene: Scene) -> Iterator[Mark]:
    rejoined = scene.found("rejoined")
    if rejoined:
        times = [e.took_s for e in rejoined if e.took_s is not None]
        bad = "; ".join(f"{e.kind} {_seconds(e)}" for e in rejoined if not e.holds)
        yield Mark(
            f"the edge answers through the gateway within {REJOIN_S:.0f} s",
            f"{len(rejoined)} times, most {max(times, default=float('nan')):.1f} s"
            + (f"; late: {bad}" if bad else ""),
            all(e.holds for e in rejoined),
        )
    yield from _of_events(scene, "untouched", "labels and runtime are as before")


def _of_events(scene: Scene, name: str, what: str, *, is_bad: bool = False) -> Iterator[Mark]:
    """Yield a mark for events of a name, where there are any. is_bad: each breaks it."""
    found = scene.found(name)
    if not found:
        if is_bad:
            yield Mark(what, "yes", True)
        return
    broken = [e for e in found if is_bad or not e.holds]
    told = "; ".join(f"{e.kind}: {e.detail}" for e in broken[:3])
    yield Mark(what, f"{len(found) - len(broken)} of {len(found)}. {told}"[:400], not broken)


def kill_delays_ms(scene: Scene) -> list[float]:
    """Return how long after a kill of the host those were answered who were under way, in order."""
    return sorted(
        (ended.ended_s - at_s) * 1e3
        for at_s in scene.kills
        for ended in scene.ledger.in_flight(at_s)
    )


def _delays_ms(scene: Scene) -> Mapping[str, Any]:
    """Return the same for each kind of accelerator fault, from when it struck."""
    found: dict[str, list[float]] = {}
    for event in scene.found("struck"):
        if event.layer == ACCELERATOR:
            delays = [(e.ended_s - event.at_s) * 1e3 for e in scene.ledger.in_flight(event.at_s)]
            found.setdefault(event.kind, []).extend(delays)
    return {kind: _spread(sorted(delays)) for kind, delays in sorted(found.items()) if delays}


def figures(scene: Scene) -> Mapping[str, Any]:
    """Return what is worth knowing and no mark, as a JSON value."""
    ledger = scene.ledger
    counted = [e for e in ledger.ended if e.kind == Kind.RIGHT]
    taken = latencies_ms(counted)
    late = sorted((e.sent_s - e.due_s) * 1e3 for e in ledger.ended)
    changes = scene.watch.history.changes
    backs: dict[str, list[float | None]] = {}
    for event in scene.found("back"):
        backs.setdefault(event.kind, []).append(event.took_s)
    strikes = sorted(e.at_s for e in scene.found("struck") if e.layer == ACCELERATOR)
    return {
        "requests": len(ledger.ended),
        "answers_by_rung": ledger.rungs(),
        "lone_models": ledger.bereft(),
        "answered_ms": _spread(taken),
        "client_late_ms": _spread(late),
        "after_a_kill_ms": _spread(kill_delays_ms(scene)),
        "under_way_when_it_struck_ms": _delays_ms(scene),
        "accelerator_faults": len(strikes),
        "seconds_between_them": _spread(sorted(b - a for a, b in pairwise(strikes))),
        "back_s": {kind: _rounded(times) for kind, times in sorted(backs.items())},
        "rejoined_s": {
            kind: _rounded([e.took_s for e in scene.found("rejoined") if e.kind == kind])
            for kind in sorted({e.kind for e in scene.found("rejoined")})
        },
        "transitions": sum(not change.is_top for change in changes),
        "faults_counted_by_the_runtime": scene.watch.accelerator.get("faults"),
        "host_starts": scene.watch.accelerator.get("starts"),
    }


def _spread(ordered: Sequence[float]) -> Mapping[str, float] | None:
    if not ordered:
        return None
    return {
        "count": len(ordered),
        **{f"p{n}": round(percentile(ordered, n / 100), 2) for n in (50, 95, 99)},
        "most": round(ordered[-1], 2),
    }


def _rounded(times: Sequence[float | None]) -> list[float | None]:
    return [None if at is None else round(at, 2) for at in times]


def _seconds(event: Event) -> str:
    return "never" if event.took_s is None else f"{event.took_s:.1f} s"
