"""Reading the summary that the load generator writes (`mlperf_log_summary.txt`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Summary:
    """is_valid: the load generator's own verdict; fields: its lines as they stand."""

    is_valid: bool
    fields: Mapping[str, str]

    def interesting(self) -> list[tuple[str, str]]:
        """Return the lines that say how it went: the verdict, rates and latencies."""
        words = ("Scenario", "Result is", "samples per second", "percentile latency", "Reason")
        return [
            (name, value)
            for name, value in self.fields.items()
            if any(word.lower() in name.lower() for word in words)
        ]


def read_summary(folder: Path) -> Summary:
    """Read the summary in a log folder. Raises ValueError when it holds no verdict."""
    text = (folder / "mlperf_log_summary.txt").read_text("utf-8")
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() and name.strip() not in fields:
            fields[name.strip()] = value.strip()
    if "Result is" not in fields:
        raise ValueError(f"no verdict in {folder}")
    return Summary(fields["Result is"] == "VALID", fields)
