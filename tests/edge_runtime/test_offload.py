"""What cannot be served here goes to the cloud, within rules, and comes back when the link dies.

The cloud is a server of the protocol in a process of its own, which a test may stop.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from edge_runtime.auth import Principal
from edge_runtime.config import OffloadSettings
from edge_runtime.engine import Engine, EngineOptions, ModelSource
from edge_runtime.errors import BudgetExceeded, NotFound, Unauthenticated, Unavailable
from edge_runtime.offload import CloudLink, OffloadingService
from edge_runtime.protocol.grpc_service import build_grpc_server
from edge_runtime.protocol.service import CallContext, InferResult, Limits
from edge_runtime.protocol.types import InferRequest, Tensor
from edge_runtime.service import EngineService
from policies.leaving import LeavingRules
from tests.contract.models import FEATURES, write_models
from tests.edge_process import EdgeProcess
from tests.edge_runtime.engine.gate import later, until

CLOUD_NAME = "edge/edge-1"  # what the server that stands in for the cloud calls itself


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSource]:
    written = write_models(tmp_path_factory.mktemp("models"))
    return {source.model: source for source in written if source.version == "1"}


@pytest.fixture(scope="module")
def cloud(
    tmp_path_factory: pytest.TempPathFactory, sources: dict[str, ModelSource]
) -> Iterator[EdgeProcess]:
    with EdgeProcess(tmp_path_factory.mktemp("cloud") / "home") as process:
        for model in ("mlp", "add_sub", "slow"):
            process.install(sources[model])
        process.start()
        yield process
        process.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
        assert process.stop() == 0


class Cloud(Protocol):
    """What a box is linked to."""

    @property
    def grpc(self) -> str: ...

    def token(self) -> str: ...


class SpentCloud(EngineService):
    """A cloud whose budget for everybody is spent, in this process."""

    grpc = ""

    def token(self) -> str:
        return "anything"

    def authenticate(self, authorization: str | None, api_key: str | None = None) -> Principal:
        return Principal("someone", frozenset({"infer"}))

    async def infer(self, request: InferRequest, context: CallContext) -> InferResult:
        raise BudgetExceeded("budget 'all' is spent", retry_after_s=3600.0)


@asynccontextmanager
async def spent_cloud() -> AsyncIterator[SpentCloud]:
    engine = Engine(EngineOptions(threads=1))
    cloud = SpentCloud(engine, (), version="test")
    await cloud.load_all()
    server = build_grpc_server(cloud, cloud, Limits())
    cloud.grpc = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield cloud
    finally:
        await server.stop(None)
        await engine.close()


@asynccontextmanager
async def box(
    cloud: Cloud, folder: Path, here: list[ModelSource], rules: LeavingRules | None = None
) -> AsyncIterator[tuple[OffloadingService, CloudLink]]:
    """A box with these models, linked to the cloud."""
    token = folder / "token"
    token.write_text(cloud.token())
    settings = OffloadSettings(gateway=cloud.grpc, tls=False, token_file=token)
    link = CloudLink(settings, "barn", Limits())
    engine = Engine(EngineOptions(threads=1, drain_s=0.5))

    async def decided(model: str, version: str, is_loaded: bool) -> None:
        """Nothing is remembered."""

    service = OffloadingService(
        engine,
        site="barn",
        rules=rules or LeavingRules(),
        link=link,
        version="test",
        target="edge/barn",
        decided=decided,
        problems=tuple,
    )
    for source in here:
        service.add(source)
    await service.load_all()
    probing = asyncio.create_task(link.run())
    try:
        await until(lambda: link.is_up)
        yield service, link
    finally:
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
        await link.close()
        await engine.close()


def call(tier: str | None = None, seconds: float = 20.0, tenant: str = "default") -> CallContext:
    caller = Principal("someone", frozenset({"infer"}), tenant)
    return CallContext(caller, later(seconds), tier=tier)


def ask(model: str = "mlp") -> InferRequest:
    return InferRequest(model, None, (Tensor("x", "FP32", np.ones((1, FEATURES), np.float32)),))


async def test_a_model_that_is_not_here_is_answered_by_the_cloud(
    cloud: EdgeProcess, sources: dict[str, ModelSource], tmp_path: Path
) -> None:
    async with box(cloud, tmp_path, [sources["mlp"]]) as (with_model, _):
        here = await with_model.infer(ask(), call())
    async with box(cloud, tmp_path, []) as (service, link):
        there = await service.infer(ask(), call())
        assert (here.target, there.target) == ("edge/barn", CLOUD_NAME)
        assert link.sent == 1
    assert np.allclose(here.response.outputs[0].data, there.response.outputs[0].data)


async def test_a_model_that_is_here_and_in_time_stays(
    cloud: EdgeProcess, sources: dict[str, ModelSource], tmp_path: Path
) -> None:
    async with box(cloud, tmp_path, [sources["mlp"]]) as (service, link):
        for _ in range(10):
            assert (await service.infer(ask(), call())).target == "edge/barn"
        assert link.sent == 0


async def test_a_caller_who_insists_gets_the_tier_that_it_asked_for(
    cloud: EdgeProcess, sources: dict[str, ModelSource], tmp_path: Path
) -> None:
    async with box(cloud, tmp_path, [sources["mlp"]]) as (service, _):
        assert (await service.infer(ask(), call("edge"))).target == "edge/barn"
        assert (await service.infer(ask(), call("cloud"))).target == CLOUD_NAME
    async with box(cloud, tmp_path, []) as (service, _):
        with pytest.raises(NotFound):
            await service.infer(ask(), call("edge"))


@pytest.mark.parametrize(
    "rules", [LeavingRules(keep_models=("m*",)), LeavingRules(keep_tenants=("clinic-*",))]
)
async def test_what_a_rule_keeps_never_leaves_even_when_nobody_here_can_answer(
    cloud: EdgeProcess, tmp_path: Path, rules: LeavingRules
) -> None:
    async with box(cloud, tmp_path, [], rules) as (service, link):
        with pytest.raises(NotFound):
            await service.infer(ask(), call(tenant="clinic-7"))
        assert link.sent == 0


async def test_a_request_on_a_link_that_dies_is_taken_back_and_computed_here(
    cloud: EdgeProcess, sources: dict[str, ModelSource], tmp_path: Path
) -> None:
    assert cloud.process is not None
    async with box(cloud, tmp_path, [sources["mlp"]]) as (service, link):
        cloud.process.send_signal(signal.SIGSTOP)
        try:
            began = asyncio.get_running_loop().time()
            waiting = asyncio.create_task(link.infer(ask(), call()))
            with pytest.raises(Unavailable):
                await waiting
            assert asyncio.get_running_loop().time() - began < 5.0
            assert not link.is_up
            assert (await service.infer(ask(), call())).target == "edge/barn"
        finally:
            cloud.process.send_signal(signal.SIGCONT)
        await until(lambda: link.is_up)
        assert (await service.infer(ask("mlp"), call("cloud"))).target == CLOUD_NAME


async def test_a_request_that_left_because_of_a_queue_here_comes_back_to_it(
    cloud: EdgeProcess, sources: dict[str, ModelSource], tmp_path: Path
) -> None:
    assert cloud.process is not None
    async with box(cloud, tmp_path, [sources["slow"]]) as (service, link):
        steps = Tensor("steps", "INT64", np.array([2000], np.int64))
        slow = InferRequest("slow", None, (steps,))
        busy = [asyncio.create_task(service.infer(slow, call("edge"))) for _ in range(3)]
        await until(lambda: service._engine.runner("slow", "1").work_ahead_s > 0)
        service._engine.runner("slow", "1").service.saw(1, 1.0)  # it is known to be slow
        link._service_s["slow"] = 0.001
        cloud.process.send_signal(signal.SIGSTOP)
        try:
            answer = await service.infer(slow, call(seconds=60.0))
        finally:
            cloud.process.send_signal(signal.SIGCONT)
        assert (answer.target, link.sent, link.taken_back) == ("edge/barn", 1, 1)
        await asyncio.gather(*busy)


async def test_a_box_answers_itself_what_the_cloud_has_no_budget_for(
    sources: dict[str, ModelSource], tmp_path: Path
) -> None:
    async with spent_cloud() as cloud:
        async with box(cloud, tmp_path, [sources["slow"]]) as (service, link):
            steps = Tensor("steps", "INT64", np.array([2000], np.int64))
            slow = InferRequest("slow", None, (steps,))
            busy = [asyncio.create_task(service.infer(slow, call("edge"))) for _ in range(3)]
            await until(lambda: service._engine.runner("slow", "1").work_ahead_s > 0)
            service._engine.runner("slow", "1").service.saw(1, 0.2)
            link._service_s["slow"] = 0.001
            answer = await service.infer(slow, call(seconds=60.0))
            assert (answer.target, link.sent) == ("edge/barn", 1)
            await asyncio.gather(*busy)
        async with box(cloud, tmp_path, []) as (service, _):
            with pytest.raises(BudgetExceeded) as error:
                await service.infer(ask(), call())
            assert error.value.retry_after_s == 3600.0


async def test_the_credential_is_read_again_when_its_file_changes(
    cloud: EdgeProcess, tmp_path: Path
) -> None:
    async with box(cloud, tmp_path, []) as (service, _):
        good = (tmp_path / "token").read_text()
        (tmp_path / "token").write_text("not a token")
        with pytest.raises(Unauthenticated):
            await service.infer(ask(), call())
        await asyncio.sleep(0.02)  # file times have a resolution
        (tmp_path / "token").write_text(good)
        assert (await service.infer(ask(), call())).target == CLOUD_NAME


async def test_a_box_that_is_drained_sends_nothing_on(cloud: EdgeProcess, tmp_path: Path) -> None:
    async with box(cloud, tmp_path, []) as (service, link):
        service.hold("drained")
        with pytest.raises(Unavailable, match="drained"):
            await service.infer(ask(), call())
        assert link.sent == 0
