"""A fault run as a document and as one picture of its time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from load.bench.machine import describe
from load.chaos.ledger import COUNTED
from load.chaos.models import DIGITS, FP32, HAILO, INT8
from load.chaos.run import Done, Options
from load.chaos.rungs import STEADY_S
from load.chaos.schedule import ACCELERATOR, BOX, CLUSTER

KEPT_ENDED: Final = 500  # requests that did not end well, in the document
_COLOURS: Final = {HAILO: "#1f5f9f", INT8: "#3d8f4f", FP32: "#8fbf6f", "stale": "#c8a21b"}
_BAD: Final = {"refused": "#c8651b", "late": "#b04a4a", "off": "#b8bec6", "lost": "#d00000"}
_ENDS: Final = ("ready", "lifted", "back", "rejoined", "state")
_LAYERS: Final = {ACCELERATOR: "#1f5f9f", BOX: "#7a4b9a", CLUSTER: "#c8651b"}


def document(options: Options, done: Done, checkout: Path) -> dict[str, Any]:
    """Return the run as a JSON value; times in seconds since its first fault could strike."""
    scene = done.scene
    began = scene.began_s
    not_right = [
        {**ended._asdict(), "counts_as": scene.ledger.category(ended)}
        for ended in scene.ledger.ended
        if ended.kind not in ("right", "stale")
    ]
    for ended in not_right:
        for name in ("due_s", "sent_s", "ended_s"):
            ended[name] = round(ended[name] - began, 3)
    not_right.sort(key=lambda e: e["counts_as"] in ("off", "excluded"))
    return {
        "machine": describe(checkout),
        "options": asdict(options),
        "took_s": round(done.took_s, 1),
        "holds": all(mark.holds for mark in done.marks),
        "marks": [asdict(mark) for mark in done.marks],
        "counts": {
            **asdict(scene.ledger.counts()),
            "availability": scene.ledger.counts().availability,
        },
        "figures": done.figures,
        "planned": [asdict(fault) for fault in done.planned],
        "events": [
            {**asdict(event), "at_s": round(event.at_s - began, 3)} for event in scene.events
        ],
        "rung": [[round(at - began, 2), rung] for at, rung in scene.watch.rungs],
        "top_rung": [
            {"at_s": round(c.at_s - began, 2), "is_top": c.is_top, "why": c.why}
            for c in scene.watch.history.changes
        ],
        "windows": [
            {
                "why": w.why,
                "model": w.model,
                "stream": w.stream,
                "off": w in scene.ledger.off,
                "since_s": round(w.since_s - began, 3),
                "until_s": round(w.until_s - began, 3),
            }
            for w in (*scene.ledger.off, *scene.ledger.excluded)
        ],
        "not_right": not_right[:KEPT_ENDED],
        "not_right_in_all": len(not_right),
    }


def write_report(
    found: Mapping[str, Any], done: Done, path: Path, plot: Path | None = None
) -> None:
    """Write the document, and the picture where one is wanted."""
    path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if plot is not None:
        draw(done, plot)


def draw(done: Done, path: Path) -> None:
    """Write an SVG: answers a second by rung, what was not answered, and the faults below."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "prime-spark", "font.size": 8, "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, (answers, bad, faults) = pyplot.subplots(
        3, 1, figsize=(14, 6), sharex=True, height_ratios=(3, 1, 2)
    )
    _answers(answers, done)
    _bad(bad, done)
    _faults(faults, done)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _answers(axis: Any, done: Done) -> None:
    seconds = _seconds(done)
    found = {rung: [0] * seconds for rung in _COLOURS}
    for at, rung, _ in _by_second(done, DIGITS):
        if rung in found and at < seconds:
            found[rung][at] += 1
    axis.stackplot(
        range(seconds),
        *found.values(),
        labels=list(found),
        colors=list(_COLOURS.values()),
        step="pre",
    )
    axis.set_ylabel("digits answered/s")
    axis.legend(frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    _tidy(axis)


def _bad(axis: Any, done: Done) -> None:
    seconds = _seconds(done)
    counts = Counter((at, category) for at, _, category in _by_second(done))
    base = [0] * seconds
    for name, colour in _BAD.items():
        heights = [counts[at, name] for at in range(seconds)]
        axis.bar(range(seconds), heights, bottom=base, width=1.0, color=colour, label=name)
        base = [a + b for a, b in zip(base, heights, strict=True)]
    axis.set_ylim(0, max(5, *base))
    axis.set_ylabel("not answered/s")
    axis.legend(frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1.0, 0.9))
    _tidy(axis)


def _faults(axis: Any, done: Done) -> None:
    scene = done.scene
    kinds = list(dict.fromkeys((e.layer, e.kind) for e in scene.found("struck")))
    kinds += [  # a power cut is noted when it is over
        (BOX, kind)
        for kind in dict.fromkeys(e.kind for e in scene.found("ready"))
        if (BOX, kind) not in kinds
    ]
    kinds.sort(key=lambda pair: (list(_LAYERS).index(pair[0]), pair[1]))
    rows = {pair: row for row, pair in enumerate(kinds)}
    for event in scene.events:
        pair = (event.layer, event.kind)
        if pair not in rows or event.what not in ("struck", *_ENDS):
            continue
        judged_s = STEADY_S if event.what == "back" else 0.0  # it has held for so long by then
        at = event.at_s - judged_s - scene.began_s
        is_begin = event.what == "struck"
        colour = _LAYERS[event.layer] if event.holds else "#d00000"
        axis.plot(at, rows[pair], "|" if is_begin else ".", color=colour, markersize=6)
    axis.set_yticks(range(len(kinds)), [kind for _, kind in kinds], fontsize=6)
    axis.invert_yaxis()
    axis.set_xlabel("seconds (| struck, . back; red: not as it must be)")
    _tidy(axis)


def _by_second(done: Done, model: str = "") -> Iterator[tuple[int, str, str]]:
    """Yield second, rung and category of requests for a model, or for those that count."""
    scene = done.scene
    wanted = (model,) if model else COUNTED
    for ended in scene.ledger.ended:
        if ended.model in wanted:
            at = int(ended.ended_s - scene.began_s)
            if at >= 0:
                yield at, ended.rung, scene.ledger.category(ended)


def _seconds(done: Done) -> int:
    last = done.scene.ledger.ended[-1].ended_s if done.scene.ledger.ended else done.scene.began_s
    return max(1, int(last - done.scene.began_s))


def _tidy(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
