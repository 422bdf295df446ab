"""The benchmark of what a decision costs."""

from __future__ import annotations

import json
import random
from pathlib import Path

from load.routing.decision import (
    Believed,
    example_request,
    full_table,
    growth_mb,
    main,
    measure,
    verdicts,
)
from policies.routing import Decision
from policies.routing.lateness import ENOUGH
from policies.routing.learned import choose


def test_the_tables_that_are_measured_are_full_of_evidence() -> None:
    table = full_table(8)
    for target in table.targets:
        assert len(target.errors) >= ENOUGH
        assert target.sizes
        assert target.service_s > 0.0


def test_a_measurement_has_the_cost_of_a_decision_and_of_what_goes_with_it() -> None:
    found = measure(8, 200)
    assert 0.0 < found["decision_us"]["p50"] <= found["decision_us"]["p99"]
    assert found["table_us"]["p50"] > 0.0


def test_a_limit_that_is_passed_fails() -> None:
    def measured(p50: float) -> list[dict[str, object]]:
        return [{"targets": n, "decision_us": {"p50": p50, "p99": 1.0}} for n in (8, 1024)]

    def held(p50: float, by_model: float, grown_mb: float) -> list[bool]:
        found = verdicts(measured(p50), measured(by_model), grown_mb, 10)
        return [verdict.is_met for verdict in found]

    assert all(held(20.0, 50.0, 0.5))
    assert held(100.0, 50.0, 0.5) == [False, True, True, True]
    assert held(20.0, 70.0, 0.5) == [True, True, False, True]
    assert held(20.0, 50.0, 5.0) == [True, True, True, False]


def test_the_model_decides_where_its_cost_is_measured() -> None:
    assert measure(8, 200, rule=choose)["decision_us"]["p50"] > 0.0
    table = full_table(8)
    table.learner = Believed()
    rng = random.Random(1)
    now = table.targets[0].heard_at
    found = [choose(example_request(rng), table, now) for _ in range(50)]
    shown = [v for o in found if isinstance(o, Decision) for v in o.verdicts]
    assert any(verdict.model_s is not None for verdict in shown)


def test_a_table_in_use_does_not_grow() -> None:
    assert growth_mb(5_000) < 2.0


def test_the_command_writes_its_results(tmp_path: Path) -> None:
    options = ["--rounds", "1", "--decisions", "100", "--long", "200", "--out", str(tmp_path)]
    assert main(options) in (0, 1)
    document = json.loads((tmp_path / "decision.json").read_text())
    assert [m["targets"] for m in document["measured"]] == [3, 8, 64, 1024]
    page = (tmp_path / "decision.md").read_text()
    assert "| 1,024 targets |" in page
    assert page.count("held |") + page.count("held** |") == len(document["marks"])
