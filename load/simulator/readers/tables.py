"""Tables of requests (CSV): our own columns, and the public traces' ones.

Ours are those of `COLUMNS`: time (unix seconds, seconds from any zero, or ISO 8601) and size
(bytes); the others may be left out or empty: slack (seconds to the deadline), model, objective,
origin_site, place, taken (seconds to the answer) and outcome (`ok` or anything else).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from edge_runtime.errors import InvalidInput
from load.simulator.recording import OK, Problem, Recorded, Recording, objective_of, recording_of
from load.simulator.trace import seconds

COLUMNS: Final = (
    "time",
    "size",
    "slack",
    "model",
    "objective",
    "origin_site",
    "place",
    "taken",
    "outcome",
)
_AZURE: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def is_azure(columns: Sequence[str]) -> bool:
    return set(_AZURE) <= set(columns)


def is_table(columns: Sequence[str]) -> bool:
    return {"time", "size"} <= set(columns)


def read_azure_table(path: Path) -> Recording:
    """Read a trace of the Azure LLM inference family; a size is the number of tokens."""

    def parse(cells: Mapping[str, str]) -> Recorded:
        tokens = float(cells["ContextTokens"]) + float(cells["GeneratedTokens"])
        return Recorded(seconds(cells["TIMESTAMP"]), _size(tokens))

    return _read(path, parse)


def read_table(path: Path) -> Recording:
    """Read a table with our columns. Raises InvalidInput for a column that is none of them."""
    return _read(path, _parse, known=COLUMNS)


def row(request: Recorded) -> list[str]:
    """Return a request as a row of a table."""
    return [
        repr(request.at),
        str(request.size_bytes),
        "" if request.slack_s is None else repr(request.slack_s),
        request.model,
        request.objective,
        request.origin_site,
        request.place,
        "" if request.taken_s is None else repr(request.taken_s),
        request.outcome,
    ]


def write_table(path: Path, requests: Iterable[Recorded]) -> None:
    """Write requests as a table that `read_table` reads."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(row(request) for request in requests)


def _read(
    path: Path,
    parse: Callable[[Mapping[str, str]], Recorded],
    known: Sequence[str] | None = None,
) -> Recording:
    requests: list[Recorded] = []
    problems: list[Problem] = []
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            names = [name.strip() for name in reader.fieldnames or ()]
            unknown = [name for name in names if known is not None and name not in known]
            if unknown:
                raise InvalidInput(
                    f"'{path}' has a column '{unknown[0]}' that says nothing here",
                    field="trace",
                    hint="columns are " + ", ".join(known or ()),
                )
            reader.fieldnames = names
            for cells in reader:
                try:
                    requests.append(parse(cells))
                except (TypeError, ValueError, OverflowError) as error:
                    problems.append(Problem(path.name, reader.line_num, str(error)))
    except csv.Error as error:
        raise InvalidInput(f"'{path}' is no CSV: {error}", field="trace") from None
    return recording_of(path.stem, requests, problems, files=[str(path)])


def _parse(cells: Mapping[str, str]) -> Recorded:
    if None in cells:
        raise ValueError("more cells than columns")

    def text(column: str) -> str:
        return (cells.get(column) or "").strip()

    def number(column: str) -> float | None:
        found = text(column)
        return _number(found, column) if found else None

    return Recorded(
        at=_time(text("time")),
        size_bytes=_size(_number(text("size"), "size")),
        slack_s=number("slack"),
        model=text("model"),
        objective=objective_of(text("objective") or "balanced"),
        origin_site=text("origin_site"),
        place=text("place"),
        taken_s=number("taken"),
        outcome=text("outcome") or OK,
    )


def _number(text: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{column} is '{text}', not a number") from None
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(f"{column} is {text}, not a number from 0 up")
    return value


def _size(value: float) -> int:
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(f"a size of {value:g} is no number from 0 up")
    return round(value)


def _time(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError:
            raise ValueError(f"time is '{text}', neither seconds nor a date") from None
    if not math.isfinite(value):
        raise ValueError(f"time is {text}")
    return value
