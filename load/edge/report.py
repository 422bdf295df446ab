"""A run as a Markdown page: marks first, then what stands behind them, and how it was measured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from load.bench.machine import stamp
from load.edge.subjects import SUBJECTS

MB = 1e6


def markdown(name: str, document: Mapping[str, Any], soak: Mapping[str, Any] | None) -> str:
    """Return the page. name: of the JSON and SVG beside it; soak: of a soak's document, or None."""
    lines = [
        "# Edge benchmark",
        "",
        *about(document["machine"]),
        "",
        f"{document['plan']['rounds']} interleaved rounds; each round measures ours and the floor, "
        "and what is compared is the ratio or the difference within a round. Figures are medians "
        f"over rounds unless a line says otherwise. Raw results: [{name}.json]({name}.json).",
        "",
        f"![The run as a picture]({name}.svg)",
        "",
        "## Pass marks",
        "",
        *_marks(document["marks"]),
        "",
    ]
    for subject, found in document["results"].items():
        lines += [f"## {SUBJECTS[subject].title}", "", *SUBJECTS[subject].page(found), ""]
        lines += [SUBJECTS[subject].how.strip(), ""]
    if soak is not None:
        lines += _soak(soak)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def about(machine: Mapping[str, Any]) -> Iterator[str]:
    """Yield where and when it was."""
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items() if k != "ray")
    yield (
        f"{stamp(machine)}; {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}, "
        f"Python {machine['python']}, {packages}. Load average before: "
        f"{machine['load_before'][0]}. No Hailo hardware: the device is the fake one."
    )


def _marks(verdicts: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "| subject | mark | limit | found (least to most) | held |"
    yield "|---|---|---|---|---|"
    for verdict in verdicts:
        mark, found = verdict["mark"], verdict["found"]
        sign = "≤" if mark["how"] == "at_most" else "≥"
        unit = f" {mark['unit']}" if mark["unit"] else ""
        yield (
            f"| {mark['subject']} | {mark['title']} | {sign} {mark['limit']:g}{unit} "
            f"| {_number(found['value'])}{unit} "
            f"({_number(found['least'])} to {_number(found['most'])}) "
            f"| {'yes' if verdict['is_met'] else '**no**'} |"
        )


def _soak(soak: Mapping[str, Any]) -> Iterator[str]:
    name, plan, counts, rss = soak["name"], soak["soak"], soak["counts"], soak["rss"]
    rate = f"{plan['rate_per_s']:g} requests/s" if plan["rate_per_s"] else "full rate"
    samples, loads = soak["samples"], counts["loads_of_the_guest"]
    per_s = counts["answers"] / max(1e-9, samples[-1]["at_s"] - samples[0]["at_s"])
    yield "## Soak"
    yield ""
    yield from about(soak["machine"])
    yield ""
    yield (
        f"{plan['duration_s'] / 60:g} minutes at {rate}: {counts['answers']:,} right answers "
        f"({per_s:,.0f}/s), {loads} loads of the model that comes and goes; "
        f"RSS {rss['first_tenth'] / MB:.1f} MB over the first tenth, "
        f"{rss['last_tenth'] / MB:.1f} MB over the last, "
        f"{rss['most'] / MB:.1f} MB at most; the accelerator host "
        f"{rss['host_first_tenth'] / MB:.1f} and {rss['host_last_tenth'] / MB:.1f} MB. "
        f"Raw results: [{name}.json]({name}.json)."
    )
    yield ""
    yield f"![Memory over time]({name}.svg)"
    yield ""
    yield from _marks(soak["marks"])
    yield ""
    yield "| what came back | times |"
    yield "|---|---|"
    for rung, count in counts["rungs"].items():
        yield f"| right: {rung} | {count:,} |"
    for kind in ("expected", "wrong", "unexpected"):
        for what, count in counts[kind].items():
            yield f"| {kind}: {what} | {count:,} |"
    yield ""
    yield from (soak["how"].strip(), "")


def _number(value: float) -> str:
    """Return a number in as many digits as it deserves."""
    for least, digits in ((100.0, 0), (10.0, 1), (1.0, 2), (0.0, 3)):
        if abs(value) >= least:
            return f"{value:.{digits}f}"
    return str(value)
