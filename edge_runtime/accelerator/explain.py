"""What to tell people about an error of the accelerator: the number, what it means, what to do."""

from __future__ import annotations

from edge_runtime import hailo_statuses


def explain(status: object, text: str) -> str:
    """Return what a HailoRT status and the driver's own words come to, with the remedy.

    status: None or negative where the driver told none; a number in the text counts then.
    """
    number = status if isinstance(status, int) and status > 0 else hailo_statuses.status_in(text)
    if number is None:
        return text or "it does not say why"
    known = hailo_statuses.explain(number)
    return f"status {number} ({known.name}): {known.meaning} {known.remedy} [{text}]"
