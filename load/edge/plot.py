"""The run, and the soak, as one picture each."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from load.edge import death, hop, overhead, start, throughput
from load.edge.memory import MB

_LABEL: Final = 28  # characters in a line
_OWN: Final = "#1f5f9f"
_OTHER: Final = "#9aa5b1"
_LIMIT: Final = "#b0302c"
_KINDS: Final = ("#1f5f9f", "#5d94c8", "#c8651b", "#7a4b9a", "#9aa5b1")


def draw(path: Path, results: Mapping[str, Any]) -> None:
    """Write an SVG with a panel for each subject that was measured."""
    pyplot = _pyplot()
    panels = [panel for name in results for panel in _PANELS[name]]
    columns = 2
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(12, 2.7 * rows), squeeze=False)
    flat = [axis for row in axes for axis in row]
    for axis, (name, panel) in zip(flat, panels, strict=False):
        panel(axis, results[name])
        _tidy(axis)
    for axis in flat[len(panels) :]:
        axis.set_axis_off()
    _save(figure, path)


def draw_soak(path: Path, document: Mapping[str, Any]) -> None:
    """Write an SVG: memory over time, and open files and threads below it."""
    pyplot = _pyplot()
    samples = document["samples"]
    minutes = [sample["at_s"] / 60 for sample in samples]
    figure, (memory, counts) = pyplot.subplots(
        2, 1, figsize=(10, 5), sharex=True, height_ratios=(2, 1)
    )
    for key, title, colour in (("rss", "runtime", _OWN), ("host_rss", "accelerator host", _OTHER)):
        memory.plot(minutes, [s[key] / MB for s in samples], color=colour, label=title, lw=1)
    first, last = document["rss"]["first_tenth"] / MB, document["rss"]["last_tenth"] / MB
    memory.hlines(first, minutes[0], minutes[-1], colors=_LIMIT, lw=0.8, linestyles="dotted")
    memory.set_title(f"RSS, MB: {first:.1f} over the first tenth, {last:.1f} over the last")
    memory.set_ylim(bottom=0)
    memory.legend(frameon=False, fontsize=8)
    for key, colour in (("descriptors", _KINDS[2]), ("threads", _KINDS[3])):
        counts.plot(minutes, [s[key] for s in samples], color=colour, label=key, lw=1)
    counts.set_ylim(bottom=0)
    counts.set_xlabel("minutes")
    counts.legend(frameon=False, fontsize=8)
    for axis in (memory, counts):
        _tidy(axis)
    _save(figure, path)


def _ready(axis: Any, found: Mapping[str, Any]) -> None:
    values = {name: [one["ready_s"] for one in starts] for name, starts in found["starts"].items()}
    _bars(axis, values, start.READY.limit)
    axis.set_title("exec to ready, s")


def _memory(axis: Any, found: Mapping[str, Any]) -> None:
    values = {
        name: [one["after"]["rss"] / MB for one in starts]
        for name, starts in found["starts"].items()
    }
    _bars(axis, values, start.AFTER.limit)
    axis.set_title("RSS after the requests, MB")


def _http(axis: Any, found: Mapping[str, Any]) -> None:
    rounds = found["rounds"][found["heavy"]]
    values = {name: [one["latency_ms"]["p50"] for one in of] for name, of in rounds.items()}
    alone = statistics.median(values[overhead.NICE])
    _bars(axis, values, overhead.HEAVY.limit * alone + overhead.SLACK_MS)
    axis.set_title(f"{found['heavy']}, one client: p50, ms")


def _light(axis: Any, found: Mapping[str, Any]) -> None:
    name = next(name for name in found["rounds"] if name != found["heavy"])
    rounds = found["rounds"][name]
    _bars(axis, {who: [one["latency_ms"]["p50"] for one in of] for who, of in rounds.items()}, None)
    axis.set_title(f"{name}, one client: p50, ms")


def _hops(axis: Any, found: Mapping[str, Any]) -> None:
    for colour, kind in zip(_KINDS, (*hop.KINDS, hop.FLOOR), strict=True):
        sizes = sorted({one["bytes"] for one in found["rounds"][0] if one["kind"] == kind})
        p50 = [
            statistics.median(
                one["p50_ms"]
                for measured in found["rounds"]
                for one in measured
                if (one["kind"], one["bytes"]) == (kind, size)
            )
            for size in sizes
        ]
        axis.plot([size / 1e3 for size in sizes], p50, "o-", color=colour, label=kind, ms=4, lw=1)
    axis.axhline(hop.ADDED.limit, color=_LIMIT, lw=0.8, linestyle="dotted")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_title("the hop: p50 ms by kB of a frame")
    axis.legend(frameon=False, fontsize=7)


def _waits(axis: Any, found: Mapping[str, Any]) -> None:
    for kind, colour in (("kill", _OWN), ("hang", _KINDS[2])):
        waits = sorted(
            wait * 1e3
            for blow in found["blows"]
            if blow["kind"] == kind
            for wait in blow["in_flight_s"]
        )
        shares = [(number + 1) / len(waits) for number in range(len(waits))]
        axis.step(waits, shares, where="post", color=colour, label=kind, lw=1.2)
    axis.axvline(death.ANSWERED.limit, color=_LIMIT, lw=0.8, linestyle="dotted")
    axis.set_title("in flight: share answered, by ms")
    axis.legend(frameon=False, fontsize=8)


def _rates(axis: Any, found: Mapping[str, Any]) -> None:
    values = {}
    for name, measured in found["models"].items():
        rounds = measured["rounds"]
        for who, rates in rounds.items():
            if who != throughput.ALONE:
                pairs = zip(rates, rounds[throughput.ALONE], strict=True)
                values[f"{name}, {who}"] = [ours / alone for ours, alone in pairs]
    _bars(axis, values, throughput.LIMIT)
    axis.set_title("rows/s ÷ onnxruntime alone")


_PANELS: Final[Mapping[str, Sequence[Any]]] = {
    start.NAME: ((start.NAME, _ready), (start.NAME, _memory)),
    overhead.NAME: ((overhead.NAME, _http), (overhead.NAME, _light)),
    hop.NAME: ((hop.NAME, _hops),),
    death.NAME: ((death.NAME, _waits),),
    throughput.NAME: ((throughput.NAME, _rates),),
}


def _bars(axis: Any, values: Mapping[str, Sequence[float]], limit: float | None) -> None:
    """Draw medians as bars, the extremes as lines, the mark's limit dotted."""
    for place, (name, found) in enumerate(values.items()):
        median = statistics.median(found)
        colour = _OWN if place == 0 or "engine" in name else _OTHER
        axis.barh(place, median, color=colour, height=0.65)
        axis.plot([min(found), max(found)], [place, place], color="#333333", linewidth=1)
        axis.text(max(found), place, f"  {median:.3g}", va="center", fontsize=8)
    axis.set_yticks(range(len(values)), [textwrap.fill(name, _LABEL) for name in values])
    axis.invert_yaxis()
    axis.margins(x=0.15)
    if limit is not None:
        axis.axvline(limit, color=_LIMIT, lw=0.8, linestyle="dotted")


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "prime-spark", "font.size": 9, "svg.fonttype": "none"})
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _tidy(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
