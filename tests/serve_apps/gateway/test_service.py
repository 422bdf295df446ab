"""The gateway's service over a real registry, a real engine and no other target."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from cluster.registry import EmbeddedRegistry
from edge_runtime.auth import Principal
from edge_runtime.engine import Engine, ModelOptions, ModelSource
from edge_runtime.errors import (
    BudgetExceeded,
    Corrupt,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    PrimeSparkError,
    Unavailable,
    Unsupported,
)
from edge_runtime.protocol.service import (
    AGE_PARAMETER,
    RUNG_PARAMETER,
    CallContext,
    InferenceService,
)
from edge_runtime.protocol.types import InferRequest, ParameterValue
from policies.cost import Budget, Spending
from serve_apps.gateway.budgets import Budgets
from serve_apps.gateway.catalogue import Catalogue
from serve_apps.gateway.decisions import DecisionLog
from serve_apps.gateway.dispatch import Dispatcher
from serve_apps.gateway.ledger import Ledger
from serve_apps.gateway.local import LocalTarget
from serve_apps.gateway.overview import target_overview
from serve_apps.gateway.request_log import RequestLog
from serve_apps.gateway.service import GatewayService
from serve_apps.gateway.targets import TargetTable
from serve_apps.model_sync import ModelSync
from tests.contract.models import mlp_weights
from tests.serve_apps.registered import mlp_request, register, serve

DEFAULTS = ModelOptions()
HERE = {"placement": "colocated"}
MLP = ("mlp", "1")


class Gateway:
    """The parts of a gateway replica as `Gateway` wires them, without servers and without Ray."""

    def __init__(
        self, registry: EmbeddedRegistry, engine: Engine, home: Path, *limits: Budget
    ) -> None:
        self.registry = registry
        self.engine = engine
        self.sync = ModelSync(engine, registry, "colocated", DEFAULTS)
        self.catalogue = Catalogue(registry, DEFAULTS)
        self.targets = TargetTable([LocalTarget("colocated", "dc", engine, self.sync)])
        self.log = DecisionLog()
        spending = Spending(limits)
        self.requests = RequestLog(home / "requests", "gateway-0", max_bytes=1 << 20, max_days=1)
        self.budgets = Budgets(spending, home / "budgets", "gateway-0")
        dispatcher = Dispatcher(self.targets, self.log, ledger=Ledger(self.requests, spending))
        self.service: InferenceService = GatewayService(
            self.catalogue, self.targets, dispatcher, registry, "1.2.3", self.budgets
        )

    async def follow(self) -> None:
        """Take notice of what the registry holds."""
        await asyncio.gather(self.sync.step(), self.catalogue.refresh())

    async def load(self, model: str, **parameters: ParameterValue) -> None:
        await self.service.load_model(model, {**HERE, **parameters}, _context())

    def states(self, *, ready_only: bool = False) -> dict[tuple[str, str], str]:
        index = self.service.repository_index(ready_only=ready_only)
        return {(entry.name, entry.version): entry.state for entry in index}


def _context(timeout_s: float = 60.0) -> CallContext:
    now = asyncio.get_running_loop().time()
    return CallContext(Principal("alice", frozenset()), now + timeout_s)


@pytest.fixture
def unread(
    registry: EmbeddedRegistry,
    engine: Engine,
    models: Mapping[str, ModelSource],
    tmp_path: Path,
) -> Gateway:
    """A gateway that has not looked at its registry, which holds four models."""
    for name in ("mlp", "add_sub", "slow", "broken"):
        register(registry, models[name])
    return Gateway(registry, engine, tmp_path)


@pytest.fixture
async def gateway(unread: Gateway) -> AsyncIterator[Gateway]:
    """A gateway whose engine follows the registry."""
    await unread.follow()
    task = asyncio.create_task(unread.sync.run())
    yield unread
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_it_is_not_ready_before_the_registry_was_read(unread: Gateway) -> None:
    assert unread.service.health().status == "unready"
    await unread.follow()
    assert unread.service.health().status == "ready"


async def test_a_registry_that_cannot_be_read_any_more_degrades_it_and_it_goes_on(
    unread: Gateway, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    serve(registry, "mlp")
    await unread.follow()
    registry.close()
    (tmp_path / "registry").rename(tmp_path / "away")
    await unread.catalogue.refresh()
    health = unread.service.health()
    assert health.status == "degraded"
    assert "registry cannot be read" in health.reasons[0]
    found = await unread.service.infer(mlp_request(), _context())
    assert found.target == "colocated"


async def test_a_model_that_cannot_be_loaded_degrades_it_and_says_why(unread: Gateway) -> None:
    serve(unread.registry, "broken")
    await unread.follow()
    health = unread.service.health()
    assert health.status == "degraded"
    assert "broken:1 fails on colocated" in health.reasons[0]
    (target,) = target_overview(unread.targets)({})["targets"]
    assert [(each["model"], each["code"]) for each in target["failures"]] == [("broken", "corrupt")]


async def test_the_index_tells_ready_loading_broken_and_unserved_apart(unread: Gateway) -> None:
    serve(unread.registry, "mlp")
    serve(unread.registry, "broken")
    await unread.follow()
    serve(unread.registry, "slow")
    await unread.catalogue.refresh()  # the engine has not heard of `slow` yet
    assert unread.states() == {
        ("add_sub", "1"): "UNAVAILABLE",
        ("broken", "1"): "UNAVAILABLE",
        ("mlp", "1"): "READY",
        ("slow", "1"): "LOADING",
    }
    assert unread.states(ready_only=True) == {("mlp", "1"): "READY"}
    reasons = {e.name: e.reason for e in unread.service.repository_index(ready_only=False)}
    assert reasons["add_sub"] == "not served"
    assert "colocated:" in reasons["broken"]
    assert unread.service.is_model_ready("mlp", None)
    assert not unread.service.is_model_ready("slow", None)
    assert not unread.service.is_model_ready("add_sub", None)
    with pytest.raises(NotFound):
        unread.service.is_model_ready("nothing", None)


async def test_metadata_and_configuration_come_from_what_is_registered_and_served(
    unread: Gateway,
) -> None:
    serve(unread.registry, "mlp", "1", "colocated", "cloud", max_batch_size=6, max_delay_ms=1.5)
    serve(unread.registry, "slow")
    await unread.follow()
    metadata = unread.service.model_metadata("mlp", None)
    assert (metadata.name, metadata.versions) == ("mlp", ("1",))
    assert [spec.name for spec in metadata.signature.inputs] == ["x"]
    config = unread.service.model_config("mlp", "1")
    assert (config.max_batch_size, config.max_queue_delay_us) == (6, 1500)
    assert config.parameters["placement"] == "cloud,colocated"
    assert unread.service.model_config("slow", None).max_batch_size == 0
    server = unread.service.server_metadata()
    assert (server.name, server.version) == ("prime-spark", "1.2.3")


async def test_an_answer_is_what_the_model_computes_and_says_where_it_ran(
    unread: Gateway,
) -> None:
    serve(unread.registry, "mlp")
    await unread.follow()
    request = mlp_request(rows=2)
    found = await unread.service.infer(request, _context())
    hidden, out = mlp_weights()
    expected = np.maximum(np.asarray(request.inputs[0].data) @ hidden, 0) @ out
    assert np.allclose(np.asarray(found.response.outputs[0].data), expected, atol=1e-5)
    assert (found.response.version, found.response.id) == ("1", "q1")
    assert (found.target, found.reason) == ("colocated", "only_candidate")
    assert unread.log.counts == {("colocated", "only_candidate", "ok"): 1}
    (statistics,) = await unread.service.model_statistics("mlp", None)
    assert statistics.success.count == 1


async def test_an_answer_says_what_computed_it_and_how_long_ago(unread: Gateway) -> None:
    serve(unread.registry, "mlp", cache_ttl_ms=60_000.0)
    await unread.follow()
    first = await unread.service.infer(mlp_request(), _context())
    await asyncio.sleep(0.01)
    again = await unread.service.infer(mlp_request(), _context())
    assert (first.rung, first.age_s) == ("cpu-fp32", 0.0)
    assert AGE_PARAMETER not in first.response.parameters
    assert again.rung == again.response.parameters[RUNG_PARAMETER] == "cache"
    assert again.age_s >= 0.01
    assert again.response.parameters[AGE_PARAMETER] == int(again.age_s * 1e3)


async def test_a_request_that_does_not_fit_is_refused_before_it_is_sent_anywhere(
    unread: Gateway,
) -> None:
    serve(unread.registry, "mlp")
    await unread.follow()
    with pytest.raises(InvalidInput) as error:
        await unread.service.infer(InferRequest("mlp", None, ()), _context())
    assert error.value.field == "x"
    assert unread.log.total == 0


async def test_statistics_of_a_model_that_has_not_run_are_zero(unread: Gateway) -> None:
    serve(unread.registry, "mlp", "1", "cloud")
    await unread.follow()
    (statistics,) = await unread.service.model_statistics("mlp", None)
    assert (statistics.name, statistics.version) == MLP
    assert statistics.success.count == 0
    assert await unread.service.model_statistics(None, None) == []


async def test_loading_serves_a_version_and_unloading_lets_go_of_it(gateway: Gateway) -> None:
    await gateway.load("mlp")
    assert [*gateway.engine.loaded] == [MLP]
    assert gateway.service.is_model_ready("mlp", "1")
    assert [event.actor for event in gateway.registry.history("mlp")] == ["tests", "alice"]
    await gateway.service.unload_model("mlp", {}, _context())
    assert [*gateway.engine.loaded] == []
    with pytest.raises(Unavailable, match="not being served"):
        await gateway.service.infer(mlp_request(), _context())


async def test_loading_again_changes_only_the_options_that_are_given(gateway: Gateway) -> None:
    await gateway.load("mlp", max_batch_size=2, max_queue=7)
    await gateway.service.load_model("mlp", {"max_queue": 9}, _context())
    assert gateway.engine.options_of(MLP) == ModelOptions(max_batch_size=2, max_queue=9)
    (entry,) = gateway.registry.serving()[1]
    assert entry.placements == {"colocated"}


async def test_a_model_that_cannot_be_loaded_is_refused_with_the_error_it_had(
    gateway: Gateway,
) -> None:
    with pytest.raises(Corrupt, match="'broken' was not loaded by colocated"):
        await gateway.load("broken")


async def test_options_that_fail_are_told_though_the_version_goes_on_with_the_old_ones(
    gateway: Gateway,
) -> None:
    await gateway.load("mlp", max_batch_size=2)
    artifact = gateway.registry.artifact_path(gateway.registry.get(*MLP).artifacts[0])
    artifact.rename(artifact.with_name("hidden"))
    with pytest.raises(Corrupt, match="'mlp' was not loaded by colocated"):
        await gateway.load("mlp", max_batch_size=3)
    assert gateway.engine.options_of(MLP) == ModelOptions(max_batch_size=2)
    await gateway.service.infer(mlp_request(), _context())


@pytest.mark.parametrize(
    ("model", "parameters", "error", "named"),
    [
        ("nothing", {}, NotFound, "model"),
        ("mlp", {"version": "9"}, NotFound, "version"),
        ("mlp", {"version": 1}, InvalidInput, "version"),
        ("mlp", {"placement": "moon"}, InvalidInput, "placement"),
        ("mlp", {"placement": ","}, InvalidInput, "placement"),
        ("mlp", {"max_batch": 1}, InvalidInput, "max_batch"),
        ("mlp", {"max_queue": "many"}, InvalidInput, "max_queue"),
        ("mlp", {"config": "{}"}, Unsupported, "parameters"),
        ("mlp", {"file:1/model.onnx": "AA=="}, Unsupported, "parameters"),
    ],
)
async def test_what_cannot_be_meant_by_a_load_is_refused_and_changes_nothing(
    gateway: Gateway,
    model: str,
    parameters: Mapping[str, ParameterValue],
    error: type[PrimeSparkError],
    named: str,
) -> None:
    before = gateway.registry.serving()
    with pytest.raises(error) as found:
        await gateway.service.load_model(model, parameters, _context())
    assert found.value.field == named
    assert gateway.registry.serving() == before


async def test_loading_where_no_target_is_up_says_so(gateway: Gateway) -> None:
    with pytest.raises(Unavailable, match="no target is up"):
        await gateway.load("mlp", placement="edge")


async def test_a_load_that_no_target_follows_in_time_ends_with_the_deadline(
    unread: Gateway,
) -> None:
    await unread.follow()  # and nobody drives the engine from here on
    with pytest.raises(DeadlineExceeded, match="did not follow"):
        await unread.service.load_model("mlp", HERE, _context(timeout_s=0.0))


@pytest.mark.parametrize(("model", "version"), [("nothing", None), ("mlp", "1"), ("mlp", "9")])
async def test_unloading_what_is_not_served_is_refused(
    gateway: Gateway, model: str, version: str | None
) -> None:
    parameters = {} if version is None else {"version": version}
    with pytest.raises(NotFound):
        await gateway.service.unload_model(model, parameters, _context())


async def test_requests_accepted_before_an_unload_are_answered(gateway: Gateway) -> None:
    await gateway.load("mlp")
    asking = [
        asyncio.create_task(gateway.service.infer(mlp_request(), _context())) for _ in range(50)
    ]
    await asyncio.sleep(0)
    await gateway.service.unload_model("mlp", {"version": "1"}, _context())
    found = await asyncio.gather(*asking)
    assert {each.target for each in found} == {"colocated"}


async def test_a_spent_budget_refuses_and_the_refusal_is_in_the_request_log(
    registry: EmbeddedRegistry, engine: Engine, models: Mapping[str, ModelSource], tmp_path: Path
) -> None:
    register(registry, models["mlp"])
    serve(registry, "mlp")
    gateway = Gateway(registry, engine, tmp_path, Budget("all", 1.0, "month", "refuse"))
    await gateway.follow()
    await gateway.service.infer(mlp_request(), _context())
    gateway.budgets.spending.charge("default", "mlp", 1.0, time.time())
    with pytest.raises(BudgetExceeded, match="budget 'all' is spent") as error:
        await gateway.service.infer(mlp_request(), _context())
    assert error.value.retry_after_s is not None
    await gateway.requests.flush()
    (file,) = tmp_path.joinpath("requests").glob("*.jsonl")
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["attempt"], line["outcome"]) for line in told] == [
        (1, "ok"),
        (0, "budget_exceeded"),
    ]


async def test_where_no_edge_place_can_serve_a_degraded_request_is_served_and_that_is_counted(
    registry: EmbeddedRegistry, engine: Engine, models: Mapping[str, ModelSource], tmp_path: Path
) -> None:
    register(registry, models["mlp"])
    serve(registry, "mlp")
    gateway = Gateway(registry, engine, tmp_path, Budget("all", 1.0, "month", "degrade"))
    await gateway.follow()
    gateway.budgets.spending.charge("default", "mlp", 1.0, time.time())
    found = await gateway.service.infer(mlp_request(), _context())
    assert (found.target, found.reason) == ("colocated", "only_candidate")
    assert gateway.budgets.without_cheap_place == 1
