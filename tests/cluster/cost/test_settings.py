"""Budgets as they are written in the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.config import load_settings
from edge_runtime.errors import InvalidInput
from policies.cost import Budget


def settings(tmp_path: Path, limits: Any) -> Any:
    return load_settings({"PRIME_SPARK_HOME": str(tmp_path)}, {"budgets.limits": limits})


def test_a_budget_reads_as_the_policies_need_it(tmp_path: Path) -> None:
    written = [
        {"name": "everything", "usd_per_month": 300},
        {"name": "acme", "usd_per_day": 2.5, "tenant": "acme", "action": "refuse"},
        {"name": "r", "usd_per_hour": 1, "model": "resnet", "action": "degrade", "alerts": [0.9]},
    ]
    assert settings(tmp_path, written).budgets.budgets() == (
        Budget("everything", 300.0, "month"),
        Budget("acme", 2.5, "day", "refuse", tenant="acme"),
        Budget("r", 1.0, "hour", "degrade", model="resnet", alerts=(0.9,)),
    )


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ({"name": "a"}, "one of usd_per_hour"),
        ({"name": "a", "usd_per_day": 1, "usd_per_hour": 1}, "one of usd_per_hour"),
        ({"name": "a", "usd_per_day": 0}, "greater than 0"),
        ({"name": "a", "usd_per_day": 1, "tennant": "x"}, "did you mean 'tenant'"),
        ({"name": "a", "usd_per_day": 1, "action": "stop"}, "'refuse'"),
        ({"name": "a/b", "usd_per_day": 1}, "pattern"),
        ({"name": "a", "usd_per_day": 1, "alerts": [80]}, "less than or equal"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_with_the_reason(
    tmp_path: Path, limit: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says) as error:
        settings(tmp_path, [limit])
    assert (error.value.field or "").startswith("budgets.limits")
    assert "(flag)" in error.value.message


def test_two_budgets_of_one_name_are_refused(tmp_path: Path) -> None:
    limit = {"name": "a", "usd_per_day": 1}
    with pytest.raises(InvalidInput, match="two budgets are named 'a'"):
        settings(tmp_path, [limit, limit])
