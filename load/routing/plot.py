"""The routing benchmark as a picture: cost against misses, with the Pareto front."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from load.routing.judge import UTILISATIONS, Table
from load.simulator.trace import Trace


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other one beats in both coordinates, by the first."""
    best: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not best or point[1] < best[-1][1]:
            best.append(point)
    return best


def draw(path: Path, table: Table, traces: Mapping[str, Trace]) -> None:
    """Write the picture, one panel for each trace and utilisation, queues by deadline."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "prime-spark"
    figure, axes = plt.subplots(
        len(traces), len(UTILISATIONS), figsize=(4.2 * len(UTILISATIONS), 3.6 * len(traces))
    )
    grid: Any = [axes] if len(traces) == 1 else axes
    for row, trace in zip(grid, traces, strict=True):
        for panel, utilisation in zip(row, UTILISATIONS, strict=True):
            _panel(panel, table, trace, utilisation)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _panel(panel: Any, table: Table, trace: str, utilisation: float) -> None:
    points: list[tuple[float, float]] = []
    for subject in table.subjects(trace, utilisation, by_deadline=True):
        found = table.get(trace, utilisation, by_deadline=True, subject=subject)
        cost = statistics.median(1e6 * result.cost_usd for result in found)
        misses = statistics.median(100 * result.misses for result in found)
        is_ours = subject in ("latency", "balanced", "cost")
        if subject != "omniscient":
            points.append((cost, misses))
        panel.scatter([cost], [misses], marker="o" if is_ours else "x", zorder=3)
        panel.annotate(
            subject, (cost, misses), fontsize=6, xytext=(3, 3), textcoords="offset points"
        )
    line = front(points)
    panel.plot(*zip(*line, strict=True), linewidth=0.8, color="grey", zorder=1)
    panel.set_title(f"{trace}, {utilisation:.0%}", fontsize=9)
    panel.set_xlabel("micro-dollars a request", fontsize=8)
    panel.set_ylabel("misses, %", fontsize=8)
    panel.set_ylim(bottom=0)
