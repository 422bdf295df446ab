"""`prime-spark prices` and `prime-spark budgets`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.cost.spending import write_spent
from edge_runtime.errors import InvalidInput
from policies.cost import Budget, Spending

LIMITS = """
budgets:
  limits:
    - {name: everything, usd_per_month: 300}
    - {name: acme, usd_per_month: 2, tenant: acme, action: refuse}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


def run(home: Path, *words: str) -> str:
    found = CliRunner().invoke(
        app, list(words), env={"PRIME_SPARK_HOME": str(home)}, catch_exceptions=False
    )
    assert found.exit_code == 0, found.output
    return found.output


def run_json(home: Path, *words: str) -> Any:
    return json.loads(run(home, *words, "--json"))


def test_the_book_in_force_says_where_each_figure_was_set(home: Path) -> None:
    own = home / "prices.yaml"
    own.write_text("carbon_usd_per_tonne: {value: 80, source: our price, date: 2026-01-01}\n")
    (home / "config.yaml").write_text(f"cost: {{price_book: {own}}}\n")
    found = run_json(home, "prices")
    assert found["carbon_usd_per_tonne"]["origin"] == str(own)
    assert found["machines.pi.busy_w"]["origin"] == "default"
    assert "our price" in run(home, "prices")
    rates = run_json(home, "prices", "--rates")
    assert list(rates) == ["colocated", "cloud", "edge"]
    assert rates["edge"]["carbon_usd_per_g"] == pytest.approx(8e-5)


def test_a_book_that_is_wrong_is_told_with_its_name(home: Path) -> None:
    own = home / "prices.yaml"
    own.write_text("machnes: {}\n")
    (home / "config.yaml").write_text(f"cost: {{price_book: {own}}}\n")
    with pytest.raises(InvalidInput, match="machnes"):
        run(home, "prices")


def test_budgets_show_what_all_gateways_spent(home: Path) -> None:
    (home / "config.yaml").write_text(LIMITS)
    now = time.time()
    for gateway, usd in (("gateway-0", 1.5), ("gateway-1", 0.75)):
        spending = Spending([Budget("everything", 300, "month"), Budget("acme", 2, "month")])
        spending.charge("acme", "m", usd, now)
        write_spent(home / "budgets", gateway, spending.own(now))
    everything, acme = run_json(home, "budgets")
    assert (everything["spent_usd"], everything["is_exceeded"]) == (2.25, False)
    assert (acme["spent_usd"], acme["is_exceeded"], acme["action"]) == (2.25, True, "refuse")
    assert "112 %" in run(home, "budgets")


def test_without_a_budget_an_example_is_shown(home: Path) -> None:
    assert "usd_per_day" in run(home, "budgets")
    assert run_json(home, "budgets") == []
