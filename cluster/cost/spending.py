"""What each gateway spent, as files: `budgets/<gateway>.json` of the home.

A gateway writes its own file whole and reads those of the others, so no two ever write one. A
gateway that is gone leaves its file, which counts until the window turns; one that takes its place
takes up its file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge_runtime import durable
from policies.cost import Spent
from policies.cost.budget import PERIODS

VERSION: Final = 1


def write_spent(folder: Path, gateway: str, spent: Mapping[str, Spent]) -> None:
    """Say what a gateway spent, by budget. Raises OSError."""
    durable.make_folder(folder)
    document = {"v": VERSION, "spent": {name: said._asdict() for name, said in spent.items()}}
    durable.write(folder / f"{gateway}.json", json.dumps(document).encode())


def read_spent(folder: Path) -> dict[str, Mapping[str, Spent]]:
    """Return what every gateway said, by its name; a file that makes no sense says nothing."""
    try:
        found = sorted(folder.glob("*.json"))
    except OSError:
        return {}
    return {path.stem: _parsed(path) for path in found}


def _parsed(path: Path) -> Mapping[str, Spent]:
    try:
        document = json.loads(path.read_bytes())
        if document["v"] != VERSION:
            return {}
        said = {
            name: Spent(str(v["period"]), float(v["begin"]), float(v["usd"]))  # type: ignore[arg-type]
            for name, v in document["spent"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: spent for name, spent in said.items() if spent.period in PERIODS}
