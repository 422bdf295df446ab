"""What to tell people about an error of the accelerator."""

from __future__ import annotations


def explain(status: object, text: str) -> str:
    """Return one sentence for a status number and the driver's own words."""
    return f"status {status}: {text}" if status is not None else text
