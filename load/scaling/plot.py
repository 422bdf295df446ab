"""The scaling benchmark as a picture: each scene's replicas and misses, and one run by time."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, Final

from load.scaling.cells import VARIANTS, Variant
from load.scaling.judge import OURS, Table

COLUMNS: Final = 3


def draw(path: Path, table: Table) -> None:
    """Write the picture; the first panel is the first seasonal run, minute by minute."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "prime-spark"
    scenes = table.scenes()
    rows = -(-(len(scenes) + 1) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(4.6 * COLUMNS, 3.4 * rows), squeeze=False)
    panels: list[Any] = [panel for row in axes for panel in row]
    _by_time(panels[0], table, *scenes[0])
    for panel, (trace, variant) in zip(panels[1:], scenes, strict=False):
        _scene(panel, table, trace, variant)
    for panel in panels[len(scenes) + 1 :]:
        panel.axis("off")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _by_time(panel: Any, table: Table, trace: str, variant: Variant) -> None:
    for subject in (OURS, "serve_tuned"):
        if subject in table.subjects(trace, variant):
            curve = table.get(trace, variant, subject)[0].curve
            panel.plot([there for _, there in curve], linewidth=0.9, label=subject)
    curve = table.get(trace, variant, OURS)[0].curve
    panel.plot([work for work, _ in curve], linewidth=0.9, color="grey", label="work")
    panel.legend(fontsize=6)
    panel.set_title(f"{Path(trace).stem}, one run", fontsize=9)
    panel.set_xlabel("minutes", fontsize=8)
    panel.set_ylabel("replicas", fontsize=8)


def _scene(panel: Any, table: Table, trace: str, variant: Variant) -> None:
    for subject in table.subjects(trace, variant):
        found = table.get(trace, variant, subject)
        at = (
            statistics.median(result.replicas for result in found),
            statistics.median(100 * result.misses for result in found),
        )
        panel.scatter(*at, marker="o" if subject == OURS else "x", zorder=3)
        panel.annotate(subject, at, fontsize=6, xytext=(3, 3), textcoords="offset points")
    panel.set_title(f"{Path(trace).stem}{VARIANTS[variant]}", fontsize=9)
    panel.set_xlabel("replicas", fontsize=8)
    panel.set_ylabel("misses, %", fontsize=8)
    panel.set_ylim(bottom=0)
