"""Tables of the documentation say what the code says."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from cluster.cli.main import EXIT_CODES
from cluster.config import Settings, known_keys
from cluster.identity.scopes import SCOPES
from edge_runtime.app import EdgeRuntime, Places, RuntimeConfig
from edge_runtime.auth import CACHE_S
from edge_runtime.config import EdgeSettings
from edge_runtime.engine import Engine, EngineOptions
from edge_runtime.errors import PrimeSparkError
from edge_runtime.metrics import RuntimeCollector
from edge_runtime.protocol.body import ByteBudget
from edge_runtime.protocol.gate import Gate
from edge_runtime.protocol.grpc_client import WayLost
from edge_runtime.protocol.grpc_service import grpc_status
from edge_runtime.protocol.rest import http_status
from policies.cost import Spending
from policies.routing.types import REASONS
from policies.scaling import REASONS as SCALING_REASONS
from serve_apps.gateway.budgets import Budgets
from serve_apps.gateway.decisions import DecisionLog
from serve_apps.gateway.dispatch import DEGRADED, FAILOVER, Dispatcher
from serve_apps.gateway.ledger import Ledger
from serve_apps.gateway.metrics import metrics_text
from serve_apps.gateway.shadows import Shadows
from serve_apps.gateway.targets import TargetTable
from tests.docs.pages import DOCS, ROOT, table


def kinds(kind: type[PrimeSparkError] = PrimeSparkError) -> Iterator[type[PrimeSparkError]]:
    """Yield the product's errors; tests and load define none."""
    yield kind
    for below in kind.__subclasses__():
        yield from kinds(below)


def test_the_error_table_is_the_error_tree_with_its_statuses() -> None:
    ours = ("policies", "edge_runtime", "cluster", "serve_apps")
    expected = {
        (kind.code, str(http_status(kind("x"))), grpc_status(kind("x")).name)
        for kind in kinds()
        if kind.__module__.partition(".")[0] in ours
    }
    assert WayLost in kinds()  # its module is loaded where it is needed only
    shown = {(code, http, grpc) for code, http, grpc, _ in table("reference/errors.md", "code")}
    assert shown == expected


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    text = (DOCS / "reference" / "errors.md").read_text("utf-8")
    shown = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert shown == {0, 1, 130, *EXIT_CODES.values()}


def test_the_settings_table_has_every_setting_with_its_default() -> None:
    defaults = Settings().model_dump(mode="json")
    expected: list[tuple[str, str]] = []
    for key in known_keys():
        value = defaults
        for part in key.split("."):
            value = value[part]
        text = "" if value is None else str(value)
        expected.append((key, text.lower() if isinstance(value, bool) else text))
    shown = [(key, default) for key, default, _ in table("reference/settings.md", "setting")]
    assert shown == expected


def test_the_reasons_are_those_that_routing_gives() -> None:
    shown = [reason for reason, _ in table("reference/http.md", "reason")]
    assert shown == [*REASONS, FAILOVER, DEGRADED]


def test_the_scopes_are_those_that_credentials_may_hold() -> None:
    shown = {scope for scope, _ in table("how-to/credentials.md", "scope")}
    assert shown == set(SCOPES)


async def test_the_edge_metrics_are_those_that_the_edge_runtime_answers_with(
    tmp_path: Path,
) -> None:
    places = Places(models=tmp_path / "models", state=tmp_path, run=tmp_path)
    edge = EdgeSettings.model_validate({"accelerator": {"kind": "hailo"}})
    settings = Settings()
    runtime = EdgeRuntime(
        RuntimeConfig(places, edge, settings.engine, settings.limits, {}, None, "test")
    )
    device = runtime.accelerator
    assert device is not None
    device.sensors.temperature_c = device.sensors.power_w = 1.0
    found = {
        metric.name + ("_total" if metric.type == "counter" else ""): metric.type
        for metric in RuntimeCollector(runtime).collect()
    }
    await runtime.engine.close()
    shown = {name: kind for name, kind, *_ in table("reference/metrics.md", "edge metric")}
    assert shown == found


async def test_the_metrics_are_those_that_the_gateway_answers_with(tmp_path: Path) -> None:
    engine = Engine(EngineOptions())
    parts = (DecisionLog(), TargetTable(()), ByteBudget(1), Gate())
    budgets = Budgets(Spending(()), tmp_path, "gateway-0")
    shadows = Shadows(Dispatcher(parts[1], parts[0]))
    text, _ = metrics_text(engine, *parts, Ledger(), budgets, shadows)()
    await engine.close()
    kinds_of = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text.decode(), re.MULTILINE))
    shown = {name: kind for name, kind, *_ in table("reference/metrics.md", "metric")}
    assert shown == kinds_of


def test_every_dependency_has_its_reason_and_no_other_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {
        re.split(r"[\[<>=~! ]", line, maxsplit=1)[0]
        for line in [*project["dependencies"], *(dep for deps in extras.values() for dep in deps)]
    } - {"prime-spark"}
    text = (DOCS / "dependencies.md").read_text("utf-8")
    named = {
        name
        for line in re.findall(r"^- (`[^:]+):", text, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", line)
    }
    assert named == wanted


def test_a_revoked_key_is_refused_as_soon_as_the_pages_say() -> None:
    for page in ("how-to/credentials.md", "security/index.md"):
        assert re.search(rf"within {CACHE_S:g} s", (DOCS / page).read_text("utf-8"))


def test_the_scaling_reasons_are_those_that_decisions_give() -> None:
    shown = dict(table("explanation/scaling.md", "scaling reason"))
    assert shown == SCALING_REASONS
