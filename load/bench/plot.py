"""The run as one picture: latency bars for one client, and ratio dots with their extremes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from load.bench.marks import series
from load.bench.report import OURS
from load.bench.rounds import Outcome, Plan
from load.bench.stats import paired_ratios
from load.bench.subjects import Subject

_OWN: Final = "#1f5f9f"
_OTHER: Final = "#9aa5b1"
_DOTS: Final = ("#1f5f9f", "#c8651b", "#3d8f4f", "#7a4b9a")


def draw(path: Path, plan: Plan, subjects: Sequence[Subject], outcome: Outcome) -> None:
    """Write an SVG: for each model its p50 and p95, and our throughput over that of others."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "prime-spark", "font.size": 9, "svg.fonttype": "none"})
    from matplotlib import pyplot

    models = list(dict.fromkeys(m.model for m in outcome.measurements))
    figure, axes = pyplot.subplots(
        len(models), 2, figsize=(12, 0.45 * len(subjects) * len(models) + 1.6), squeeze=False
    )
    for row, model in enumerate(models):
        _latency(axes[row][0], model, plan.clients[0], subjects, outcome)
        _ratios(axes[row][1], model, plan, subjects, outcome)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _latency(
    axis: Any, model: str, clients: int, subjects: Sequence[Subject], outcome: Outcome
) -> None:
    found = [
        (subject, series(outcome.measurements, model, clients, subject.name, "p50_ms"))
        for subject in subjects
    ]
    shown = [(subject, values) for subject, values in found if values]
    for place, (subject, values) in enumerate(shown):
        p50 = statistics.median(values)
        p95 = statistics.median(
            series(outcome.measurements, model, clients, subject.name, "p95_ms")
        )
        is_own = subject.name.startswith("prime-spark")
        axis.barh(place, p50, color=_OWN if is_own else _OTHER, height=0.65)
        axis.plot([p50, p95], [place, place], color="#333333", linewidth=1)
        axis.text(p95, place, f"  {p50:.2f}", va="center")
    axis.set_yticks(range(len(shown)), [subject.title for subject, _ in shown])
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set_title(f"{model}, {clients} client: p50 (bar) to p95 (line), ms")
    _tidy(axis)


def _ratios(
    axis: Any, model: str, plan: Plan, subjects: Sequence[Subject], outcome: Outcome
) -> None:
    others = [
        subject
        for subject in subjects
        if subject.name != OURS
        and subject.protocol != "onnx"
        and series(outcome.measurements, model, plan.clients[0], subject.name, "per_s")
    ]
    step = 0.6 / max(1, len(plan.clients))
    for number, clients in enumerate(plan.clients):
        for place, subject in enumerate(others):
            ours = series(outcome.measurements, model, clients, OURS, "per_s")
            theirs = series(outcome.measurements, model, clients, subject.name, "per_s")
            if not ours or not theirs:
                continue
            ratio = paired_ratios(ours, theirs)
            height = place - 0.3 + step * (number + 0.5)
            colour = _DOTS[number % len(_DOTS)]
            axis.plot([ratio.least, ratio.most], [height, height], color=colour, linewidth=1)
            axis.plot(
                ratio.median,
                height,
                "o",
                color=colour,
                markersize=5,
                label=f"{clients} client{'s' if clients > 1 else ''}" if place == 0 else None,
            )
    axis.axvline(1.0, color="#333333", linewidth=0.8)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.tick_params(axis="x", which="minor", labelsize=7)
    axis.set_yticks(range(len(others)), [subject.title for subject in others])
    axis.invert_yaxis()
    axis.set_title(f"{model}: our co-located answers/s ÷ theirs (right of 1: we are faster)")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8)
    _tidy(axis)


def _tidy(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
