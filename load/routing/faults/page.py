"""The page of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from load.bench.machine import measured_on
from load.routing.faults.phases import SLOWER

_WHO: Final = {
    "quick": "quick",
    "any": "paced",
    "cloud": "paced, cloud alone",
    "edge": "paced, box alone",
}
_HOW: Final = {
    "network": "Everything on the link between the box, in a network namespace of its own, and "
    "the rest is lost, both ways",
    "stopped": "All processes of the box are stopped (without root it has no network of its own)",
}


def markdown(document: Mapping[str, Any]) -> str:
    """Return the page."""
    machine, plan = document["machine"], document["plan"]
    return "\n".join(
        [
            "# Routing when the edge goes away",
            "",
            f"{measured_on(machine)}. One run of "
            f"{document['took_s']:.0f} s. Raw results: [routing-faults.json](routing-faults.json).",
            "",
            "A cluster on one machine: the cloud tier with one replica, and an edge box with a "
            f"fake Hailo device of {1e3 * plan['device_s']:g} ms a frame, nearest and cheapest. A "
            f"run of the model takes the cloud {1e3 * plan['cloud_s']:g} ms, in which it waits "
            "instead of computing, so that two processors are enough for everybody. Requests of "
            f"the box's site, each with {plan['late_ms']} ms, come whatever becomes of those "
            f"before: {plan['rate']:g} a second of a quick model, of which the cloud takes eight "
            f"into a run, or {plan['paced_rate']:g} a second of a paced one, of which it takes "
            f"one. {_HOW[document['how']]}, for {plan['partition_s']:g} s; the first 2 s of that "
            f"are `going away`. Later the device is {SLOWER:g} times slower for "
            f"{plan['slow_s']:g} s.",
            "",
            f"What is left is measured beside it: slices of {plan['slice_s']:g} s with the same "
            "arrivals take turns, whose requests may go anywhere, insist on the cloud, or insist "
            "on the box. Alone, each place is asked for more than it has all the time, and drops "
            "what would be late; the goodput of that is what the place has to give.",
            "",
            "| phase | requests | of them a second in time | in time % | p50 ms | p99 ms "
            "| processors busy % | answered by |",
            "|---|---|---|---|---|---|---|---|",
            *(_row(row) for row in document["rows"]),
            "",
            f"The box was used again {document['returned_s']:.1f} s after it was back. For its "
            f"silence {document['left_early'][0]} requests left it before their deadline while it "
            f"was away, and {document['left_early'][1]} at any other time.",
            "",
            "| phase | what | found | least to most | limit | |",
            "|---|---|---|---|---|---|",
            *(_mark(verdict) for verdict in document["marks"]),
            "",
        ]
    )


def _row(row: Mapping[str, Any]) -> str:
    targets = ", ".join(f"{target} {count}" for target, count in sorted(row["targets"].items()))
    return (
        f"| {row['phase']}: {_WHO[row['kind']]} | {row['requests']} | {row['good_per_s']:.1f} "
        f"| {100 * row['in_time']:.2f} | {row['p50_ms']:.1f} | {row['p99_ms']:.1f} "
        f"| {100 * row['busy']:.0f} | {targets} |"
    )


def _mark(verdict: Mapping[str, Any]) -> str:
    mark, found = verdict["mark"], verdict["found"]
    least, most = found["least"], found["most"]
    spread = "" if least == most else f"{least:.3f} to {most:.3f}"
    sign = "≤" if mark["how"] == "at_most" else "≥"
    return (
        f"| {mark['subject']} | {mark['title']} | {found['value']:.4g} | {spread} "
        f"| {sign} {mark['limit']:g} | {'held' if verdict['is_met'] else '**not held**'} |"
    )
