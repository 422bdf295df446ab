"""The benchmark as functions: measure and judge; write raw results, page and plot."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from load.bench import machine
from load.edge import plot, report
from load.edge.marks import Verdict
from load.edge.models import Models
from load.edge.plan import Plan
from load.edge.stage import Stage
from load.edge.subjects import SUBJECTS

CHECKOUT: Final = Path(__file__).resolve().parents[2]
SOAK: Final = "edge-soak"


def run(
    models: Models, plan: Plan, names: Sequence[str], say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure these subjects; return machine, plan, marks and results as a JSON value.

    Raises DidNotStart, MeasurementFailed, ValueError (a wrong answer).
    """
    began = time.monotonic()
    about = machine.describe(CHECKOUT)
    results: dict[str, Any] = {}
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
        stage = Stage(models, plan, Path(folder), say)
        for name in names:
            found = json.loads(json.dumps(SUBJECTS[name].measure(stage)))
            results[name] = found
            verdicts += SUBJECTS[name].judged(found)
    return {
        "machine": about,
        "plan": asdict(plan),
        "took_s": round(time.monotonic() - began, 1),
        "marks": [asdict(verdict) for verdict in verdicts],
        "results": results,
    }


def write(document: dict[str, Any], out: Path, name: str) -> Path:
    """Write NAME.json, NAME.svg and NAME.md; a soak that lies beside them is part of the page."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    plot.draw(out / f"{name}.svg", document["results"])
    page = out / f"{name}.md"
    page.write_text(report.markdown(name, document, read_soak(out)), "utf-8")
    return page


def read_soak(out: Path) -> dict[str, Any] | None:
    """Return the soak's document that lies in a folder."""
    path = out / f"{SOAK}.json"
    if not path.exists():
        return None
    document: dict[str, Any] = json.loads(path.read_bytes())
    return {"name": SOAK, **document}
