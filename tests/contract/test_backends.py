"""What is true of everything that computes a model: one suite over all backends.

A backend is tested as the engine uses it, as a rung. Another one is one more line in `CONTENDERS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.backends.base import AcceleratorFault, BackendLoader, BackendOptions, Cancelled
from edge_runtime.backends.onnx import has_cuda, load_onnx, load_onnx_on_cuda
from edge_runtime.engine.batch import Work
from edge_runtime.engine.jobs import Batch
from edge_runtime.engine.rungs import AcceleratorRung, ProcessorRung, Rung
from edge_runtime.errors import InvalidInput
from edge_runtime.protocol.types import Array
from load.fake_hailo.device import FakeDevice
from tests.edge_runtime.accelerator import networks
from tests.edge_runtime.accelerator.box import Box
from tests.edge_runtime.accelerator.networks import Compiled, Floats

OUTPUTS = ("map", "scores")

Open = Callable[[Compiled, Path], AbstractAsyncContextManager[Rung]]


@dataclass(frozen=True)
class Contender:
    """open: gives a network on the backend. is_quantised: by uint8 inputs and outputs."""

    name: str
    open: Open
    is_quantised: bool = False
    is_here: Callable[[], bool] = lambda: True


def in_this_process(name: str, loader: BackendLoader) -> Open:
    @asynccontextmanager
    async def opened(net: Compiled, folder: Path) -> AsyncIterator[Rung]:
        with ThreadPoolExecutor(2) as pool:
            rung = ProcessorRung(name, loader(net.onnx, BackendOptions()), pool, 2)
            yield rung
            rung.close()

    return opened


@asynccontextmanager
async def on_the_fake(net: Compiled, folder: Path) -> AsyncIterator[Rung]:
    device = FakeDevice(folder / "device")
    device.create()
    box = Box(device)
    box.start()
    signature = load_onnx(net.onnx, BackendOptions()).signature
    backend = await box.accelerator.open(net.source(max_batch_size=4), signature)
    assert backend is not None
    rung = AcceleratorRung("hailo", backend)
    del backend
    yield rung
    rung.close()
    await box.close()


CONTENDERS = (
    Contender("onnxruntime", in_this_process("cpu", load_onnx)),
    Contender("cuda", in_this_process("cuda", load_onnx_on_cuda), is_here=has_cuda),
    Contender("hailo", on_the_fake, is_quantised=True),
)


class Bench:
    """A contender's rung with the network that it has opened."""

    def __init__(self, contender: Contender, net: Compiled, rung: Rung) -> None:
        self.contender = contender
        self.net = net
        self.rung = rung

    async def compute(
        self, *requests: Array, outputs: Sequence[str] = OUTPUTS, batch: Batch | None = None
    ) -> list[list[Array]]:
        works = [Work({"x": x}, tuple(outputs), len(x), None) for x in requests]
        return (await self.rung.compute(batch or Batch([]), works)).parts

    def check(self, x: Floats, found: Sequence[Array], outputs: Sequence[str] = OUTPUTS) -> None:
        named = {name: np.asarray(data) for name, data in zip(outputs, found, strict=True)}
        if self.contender.is_quantised:
            networks.assert_right(self.net, x, named)
        else:
            networks.assert_exact(self.net, x, named)

    async def check_it_serves(self) -> None:
        x = self.net.images(2, seed=77)
        self.check(x, (await self.compute(x))[0])


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return networks.make(tmp_path_factory.mktemp("contract"))


@pytest.fixture(params=CONTENDERS, ids=lambda contender: contender.name)
async def bench(
    request: pytest.FixtureRequest, net: Compiled, tmp_path: Path
) -> AsyncIterator[Bench]:
    contender: Contender = request.param
    if not contender.is_here():
        pytest.skip(f"{contender.name} is not on this machine")
    async with contender.open(net, tmp_path) as rung:
        yield Bench(contender, net, rung)


async def test_it_says_what_it_is_and_is_available(bench: Bench) -> None:
    backend = bench.rung.backend
    assert backend.name
    assert backend.platform
    assert [spec.name for spec in backend.signature.inputs] == ["x"]
    assert [spec.name for spec in backend.signature.outputs] == list(OUTPUTS)
    assert (bench.rung.is_available, bench.rung.why) == (True, "")
    assert bench.rung.workers(0) >= 1


async def test_answers_are_the_network_s_for_any_number_of_rows(bench: Bench) -> None:
    for rows in (1, 2, 4, 5, 11):
        x = bench.net.images(rows, seed=rows)
        ((found_map, scores),) = await bench.compute(x)
        assert (found_map.shape, scores.shape) == ((rows, *networks.MAP), (rows, networks.CLASSES))
        assert found_map.dtype == scores.dtype == np.float32
        bench.check(x, [found_map, scores])


async def test_the_outputs_are_those_asked_for_in_the_order_asked(bench: Bench) -> None:
    x = bench.net.images(3)
    for outputs in (("scores", "map"), ("scores",), ("map",)):
        ((*found,),) = await bench.compute(x, outputs=outputs)
        assert len(found) == len(outputs)
        bench.check(x, found, outputs)


async def test_a_batch_is_cut_up_into_what_each_request_gets_alone(bench: Bench) -> None:
    requests = [bench.net.images(rows, seed=rows) for rows in (1, 4, 2, 3)]
    together = await bench.compute(*requests)
    for x, found in zip(requests, together, strict=True):
        (alone,) = await bench.compute(x)
        for one, other in zip(found, alone, strict=True):
            assert np.allclose(one, other, atol=1e-4)
        bench.check(x, found)


async def test_rows_in_another_order_are_answered_in_that_order(bench: Bench) -> None:
    x = bench.net.images(4)
    order = [2, 0, 3, 1]
    ((straight, _),) = await bench.compute(x)
    ((permuted, _),) = await bench.compute(x[order])
    assert np.allclose(permuted, straight[order], atol=1e-4)


async def test_inputs_may_be_read_only_or_strided_and_are_not_changed(bench: Bench) -> None:
    x = bench.net.images(8)[::2]
    kept = x.copy()
    x.flags.writeable = False
    (found,) = await bench.compute(x)
    assert np.array_equal(x, kept)
    bench.check(kept, found)


async def test_answers_are_the_caller_s_to_keep(bench: Bench) -> None:
    first = bench.net.images(2, seed=1)
    (found,) = await bench.compute(first)
    for seed in range(2, 8):
        await bench.compute(bench.net.images(4, seed=seed))
    bench.check(first, found)


async def test_a_bad_input_is_the_caller_s_fault_and_harms_nobody(bench: Bench) -> None:
    x = bench.net.images(2)
    for bad in (x.astype(np.float64), x[:, :, :, :2], x[:, :1], x.reshape(2, -1)):
        with pytest.raises(InvalidInput, match="x"):
            await bench.compute(bad)
    await bench.check_it_serves()


async def test_a_batch_that_was_given_up_before_it_began_is_not_computed(bench: Bench) -> None:
    batch = Batch([])
    batch.abandon()
    with pytest.raises(Cancelled):
        await bench.compute(bench.net.images(1), batch=batch)
    await bench.check_it_serves()


async def test_giving_up_while_it_runs_or_afterwards_is_harmless(bench: Bench) -> None:
    for turn in range(10):
        batch = Batch([])
        task = asyncio.create_task(bench.compute(bench.net.images(2), batch=batch))
        for _ in range(turn):
            await asyncio.sleep(0)
        batch.abandon()
        with contextlib.suppress(Cancelled):
            await task
        batch.abandon()
    await bench.check_it_serves()


async def test_a_task_that_is_cancelled_is_harmless(bench: Bench) -> None:
    for turn in range(10):
        task = asyncio.create_task(bench.compute(bench.net.images(2)))
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await bench.check_it_serves()


async def test_as_many_at_once_as_it_says_are_each_given_their_own(bench: Bench) -> None:
    at_once = asyncio.Semaphore(bench.rung.workers(0))

    async def one(seed: int) -> None:
        x = bench.net.images(1 + seed % 4, seed)
        async with at_once:
            (found,) = await bench.compute(x)
        bench.check(x, found)

    await asyncio.gather(*[one(seed) for seed in range(60)])


async def test_a_closed_backend_computes_nothing_and_may_be_closed_again(bench: Bench) -> None:
    bench.rung.close()
    with pytest.raises((RuntimeError, AcceleratorFault), match=r"closed|unloaded"):
        await bench.compute(bench.net.images(1))
    bench.rung.close()


async def test_what_was_closed_is_kept_by_nobody(bench: Bench) -> None:
    await bench.check_it_serves()
    bench.rung.close()
    held = weakref.ref(bench.rung.backend)
    bench.rung.backend = Closed()  # type: ignore[assignment]
    gc.collect()
    assert held() is None


class Closed:
    """What the fixture may close once more."""

    def close(self) -> None: ...
