"""The routing benchmark as a picture: cost against misses, with the Pareto front."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Point:
    """A rule in a picture. is_ours: else a rule to compare with; is_bound: not on the front."""

    label: str
    x: float
    y: float
    is_ours: bool
    is_bound: bool = False


def draw(path: Path, table: Table, traces: Mapping[str, Trace]) -> None:
    """Write the picture, one panel for each trace and utilisation, queues by deadline."""
    rows = [
        [_points(table, trace, utilisation) for utilisation in UTILISATIONS] for trace in traces
    ]
    titles = [[f"{trace}, {load:.0%}" for load in UTILISATIONS] for trace in traces]
    labels = ("micro-dollars a request", "misses, %")
    draw_panels(path, rows, titles, [[labels] * len(UTILISATIONS)] * len(rows))


def draw_panels(
    path: Path,
    rows: Sequence[Sequence[Sequence[Point]]],
    titles: Sequence[Sequence[str]],
    labels: Sequence[Sequence[tuple[str, str]]],
    *,
    is_from_zero: bool = True,
) -> None:
    """Write a grid of panels as SVG, each with the front of its points.

    labels: of the axes of each panel, x and y; is_from_zero: y begins at 0.
    """
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "prime-spark"
    size = (4.2 * len(rows[0]), 3.6 * len(rows))
    figure, axes = plt.subplots(len(rows), len(rows[0]), figsize=size, squeeze=False)
    for i, row in enumerate(rows):
        for j, points in enumerate(row):
            _panel(axes[i][j], points, titles[i][j], labels[i][j])
            if is_from_zero:
                axes[i][j].set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _points(table: Table, trace: str, utilisation: float) -> list[Point]:
    points: list[Point] = []
    for subject in table.subjects(trace, utilisation, by_deadline=True):
        found = table.get(trace, utilisation, by_deadline=True, subject=subject)
        cost = statistics.median(1e6 * result.cost_usd for result in found)
        misses = statistics.median(100 * result.misses for result in found)
        is_ours = subject in ("latency", "balanced", "cost")
        points.append(Point(subject, cost, misses, is_ours, subject == "omniscient"))
    return points


def _panel(panel: Any, points: Sequence[Point], title: str, labels: tuple[str, str]) -> None:
    for point in points:
        panel.scatter([point.x], [point.y], marker="o" if point.is_ours else "x", zorder=3)
        panel.annotate(
            point.label,
            (point.x, point.y),
            fontsize=6,
            xytext=(3, 3),
            textcoords="offset points",
        )
    line = front([(point.x, point.y) for point in points if not point.is_bound])
    panel.plot(*zip(*line, strict=True), linewidth=0.8, color="grey", zorder=1)
    panel.set_title(title, fontsize=9)
    panel.set_xlabel(labels[0], fontsize=8)
    panel.set_ylabel(labels[1], fontsize=8)
