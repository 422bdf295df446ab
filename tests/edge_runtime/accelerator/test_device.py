"""The accelerator as the engine uses it: a real child, a fake driver, faults while it serves."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.accelerator import device as device_module
from edge_runtime.accelerator.device import HailoAccelerator, has_signs, interpreters
from edge_runtime.accelerator.model import SLOTS
from edge_runtime.engine import Engine, EngineOptions
from edge_runtime.errors import DeadlineExceeded, Overloaded
from load.fake_hailo.device import DRIVER_PATH, FakeDevice
from tests.edge_runtime.accelerator import networks
from tests.edge_runtime.accelerator.box import PATIENCE_S, RETURN_S, Box
from tests.edge_runtime.accelerator.networks import Compiled
from tests.edge_runtime.accelerator.processes import (
    ROOT,
    descriptors,
    is_alive,
    is_known,
    mapped_tensors,
    program_of,
)
from tests.edge_runtime.engine.gate import until


@pytest.fixture
async def box(device: FakeDevice, net: Compiled) -> AsyncIterator[Box]:
    """A box that serves one model on the accelerator."""
    box = Box(device)
    box.start()
    await box.load(net)
    await box.until_it_serves()
    assert box.faults == {}
    yield box
    device.heal()
    await box.close()


async def test_answers_are_those_of_uint8_inputs_and_outputs(box: Box) -> None:
    for rows in (1, 2, 3, 8):
        assert await box.ask(rows) == "hailo"
    assert await box.ask(20) == "hailo"  # more than a batch holds
    assert await box.ask(2, "scores", "map") == "hailo"
    assert await box.ask(2, "scores") == "hailo"
    assert box.accelerator.why == ""
    assert box.accelerator.architecture == "hailo8"


async def test_many_at_once_are_each_given_their_own(box: Box) -> None:
    assert (await box.ask_many(60))["hailo"] > 0
    await until(lambda: box.model().free_slots == SLOTS)
    assert box.faults == {}


def kill(box: Box) -> None:
    os.kill(box.pid, signal.SIGKILL)


def stop(box: Box) -> None:
    os.kill(box.pid, signal.SIGSTOP)


def hang(box: Box) -> None:
    box.device.hang(until="reopened")


def vanish(box: Box) -> None:
    box.device.vanish()
    asyncio.get_running_loop().call_later(0.3, box.device.put_back)


def vanish_in_a_frame(box: Box) -> None:
    box.device.vanish(after_frames=5)
    asyncio.get_running_loop().call_later(0.5, box.device.heal)


def segfault(box: Box) -> None:
    box.device.segfault(after_frames=3)


def fail_in_a_batch(box: Box) -> None:
    box.device.fail(87, after_frames=4)


def time_out(box: Box) -> None:
    box.device.fail(4)


FAULTS = [kill, stop, hang, vanish, vanish_in_a_frame, segfault, fail_in_a_batch, time_out]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_whatever_the_device_loses_the_processor_answers_and_the_device_comes_back(
    box: Box, fault: Any
) -> None:
    before = box.pid
    asked = [asyncio.create_task(box.ask(1 + n % 4)) for n in range(12)]
    await asyncio.sleep(0)
    fault(box)
    begun = time.monotonic()
    while box.accelerator.host_pid == before:  # until it has noticed
        await box.ask_many(3)
        assert time.monotonic() - begun < 10.0
    await asyncio.gather(*asked)  # each is checked against the network
    assert await box.until_it_serves() < RETURN_S
    assert box.pid != before
    assert not is_alive(before)
    assert sum(box.faults.values()) == 1
    await box.ask_many(10)
    await until(lambda: box.model().free_slots == SLOTS)


@pytest.mark.parametrize("status", [82, 6, 25])
async def test_a_refusal_does_not_end_the_host(box: Box, status: int) -> None:
    before = box.pid
    box.device.fail(status, after_frames=1)
    await box.ask_many(12)
    await box.until_it_serves()
    assert (box.pid, box.faults) == (before, {})
    await until(lambda: box.model().free_slots == SLOTS)


async def becomes_slow_and_quick_again(device: FakeDevice, net: Compiled, within_s: float) -> None:
    box = Box(device)
    box.start()
    await box.load(net)
    await box.until_it_serves()
    for _ in range(10):
        await box.ask()
    reasons = box.engine.runner("m", "1").ladder.reasons
    device.slow(60)
    async with asyncio.timeout(PATIENCE_S):
        while await box.ask() == "hailo":
            pass
    assert reasons() == ["hailo: much slower than usual"]
    device.slow(1)
    begun = time.monotonic()
    while reasons() and time.monotonic() - begun < within_s:
        await box.ask()
        await asyncio.sleep(0.01)
    still = reasons()
    rung = await box.ask()
    assert box.faults == {}
    await box.close()
    assert (still, rung) == ([], "hailo")


async def test_a_device_that_becomes_slow_steps_back_and_returns(
    device: FakeDevice, tmp_path: Path
) -> None:
    heavy = networks.make(tmp_path / "heavy", width=320)
    await becomes_slow_and_quick_again(device, heavy, RETURN_S)


async def test_a_device_returns_to_a_model_that_is_quick_on_the_processor(
    device: FakeDevice, net: Compiled
) -> None:
    await becomes_slow_and_quick_again(device, net, 3.0)


async def test_a_slow_device_with_work_ahead_does_not_hang(
    device: FakeDevice, net: Compiled, other_net: Compiled
) -> None:
    box = await learned(device, net, other_net)
    device.slow(20)  # 80 ms a frame: with those ahead, a run takes longer than it may alone
    before, lost = box.pid, box.accelerator.counts.lost
    rungs = await asyncio.gather(box.ask_many(8), box.ask_many(8, "other"))
    assert (box.pid, box.faults) == (before, {})
    assert any(found["hailo"] for found in rungs)
    assert box.accelerator.counts.lost > lost  # the processor computes what would wait too long
    await box.close()


async def test_a_device_whose_runs_are_given_up_steps_back_soon(
    device: FakeDevice, net: Compiled, other_net: Compiled
) -> None:
    box = await learned(device, net, other_net)
    device.slow(35)  # 140 ms a frame: the second of two under way is always given up
    for _ in range(4):
        await box.ask_many(6)
    assert box.faults == {}
    assert box.engine.runner("m", "1").ladder.reasons() == ["hailo: much slower than usual"]
    device.slow(1)
    assert await box.until_it_serves() < RETURN_S
    await box.close()


async def test_a_device_that_is_still_slow_after_a_fault_does_not_serve(
    device: FakeDevice, net: Compiled, other_net: Compiled
) -> None:
    box = await learned(device, net, other_net)
    before = box.pid
    device.slow(20)
    device.fail(62)
    await box.ask_many(5)
    await until(lambda: box.accelerator.host_pid not in (before, None))
    until_s = time.monotonic() + 2.5
    while time.monotonic() < until_s:
        assert await box.ask() == "cpu-fp32"
        await asyncio.sleep(0.01)
    assert box.model().is_loaded
    device.slow(1)
    assert await box.until_it_serves() < RETURN_S
    assert box.faults == {"status 62": 1}
    await box.close()


async def learned(device: FakeDevice, net: Compiled, other_net: Compiled) -> Box:
    """Return a box with two models, one row a batch, whose pace on the device is known."""
    device.create(latency_s=0.004)
    box = Box(device)
    box.start()
    for name, chosen in (("m", net), ("other", other_net)):
        await box.load(chosen, name, max_batch_size=1)
        await box.until_it_serves(name)
        for _ in range(30):
            await box.ask(model=name)
    return box


async def test_a_hot_device_rests_and_returns(device: FakeDevice, net: Compiled) -> None:
    device.create(thermal_s=0.05)
    box = Box(device)
    box.start()
    await box.load(net)
    await box.until_it_serves()
    device.set_temperature(95.0)
    await until(lambda: "hot and rests" in box.accelerator.why)
    assert await box.ask() == "cpu-fp32"
    assert (box.accelerator.sensors.temperature_c or 0) > 105
    device.set_temperature(20.0)
    await until(lambda: not box.accelerator.why)
    assert await box.until_it_serves() < RETURN_S
    assert box.faults == {}
    await box.close()


async def test_two_models_share_a_device_and_a_fault_and_both_return(
    box: Box, other_net: Compiled
) -> None:
    await box.load(other_net, "other")
    assert await box.ask(2, model="other") == "hailo"
    asked = [box.ask_many(15), box.ask_many(15, "other")]
    box.device.fail(62, after_frames=7)
    await asyncio.gather(*asked)
    await box.until_it_serves("m")
    await box.until_it_serves("other")
    assert box.faults == {"status 62": 1}


async def test_a_model_that_is_loaded_while_the_device_is_away_is_put_on_it_later(
    device: FakeDevice, net: Compiled
) -> None:
    device.vanish()
    box = Box(device)
    box.start()
    await box.load(net)
    assert await box.ask() == "cpu-fp32"
    await until(lambda: "74" in box.accelerator.why)
    assert "74" in box.engine.runner("m", "1").ladder.reasons()[0]
    device.put_back()
    assert await box.until_it_serves() < RETURN_S
    await box.close()


async def test_an_unloaded_model_leaves_the_device_to_others(box: Box, other_net: Compiled) -> None:
    await box.load(other_net, "other")
    asked = box.ask_many(10)
    model = box.model()
    await asyncio.gather(asked, box.engine.unload("other", "1"))
    await box.engine.unload("m", "1")
    assert model.why == "unloaded"
    assert box.faults == {}
    await box.load(box.nets["m"])
    assert await box.until_it_serves() < RETURN_S
    assert box.faults == {}


async def test_models_in_use_have_the_device_where_not_all_may(
    device: FakeDevice, net: Compiled, other_net: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "IN_USE_S", 1.0)
    box = Box(device, max_models=2)
    box.start()
    for name, chosen in (("old", net), ("idle", other_net)):
        await box.load(chosen, name)
    await box.until_it_serves("old")
    await box.until_it_serves("idle")
    await box.load(net, "new")  # both are in use
    assert await box.ask(model="new") == "cpu-fp32"
    assert "it holds 2 other models" in box.engine.runner("new", "1").ladder.reasons()[0]
    async with asyncio.timeout(PATIENCE_S):
        while await box.ask(model="new") != "hailo":
            assert await box.ask(model="old") == "hailo"
            await asyncio.sleep(0.02)
    assert await box.ask(model="old") == "hailo"
    assert await box.ask(model="idle") == "cpu-fp32"

    box.device.fail(62)
    await box.ask_many(5, "old")
    await box.ask_many(5, "new")
    await box.until_it_serves("old")
    await box.until_it_serves("new")
    assert not box.model("idle").is_loaded

    await box.load(other_net, "pinned", pinned=1)  # goes before those that are not
    assert await box.until_it_serves("pinned") < RETURN_S
    assert sum(box.model(name).is_loaded for name in box.nets) == 2
    assert box.faults == {"status 62": 1}
    await box.close()


async def test_a_caller_that_gives_up_frees_its_slot_when_the_run_has_ended(box: Box) -> None:
    box.device.slow(100)
    model = box.model()
    for _ in range(SLOTS + 1):
        with pytest.raises((DeadlineExceeded, Overloaded)):
            await box.ask(timeout_s=0.02)
    task = asyncio.create_task(box.ask())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: model.free_slots == SLOTS)
    box.device.slow(1)
    assert await box.until_it_serves() < RETURN_S
    assert box.faults == {}


async def test_a_loop_that_was_blocked_does_not_blame_the_device(box: Box) -> None:
    for _ in range(30):
        await box.ask()
    before = box.pid
    for _ in range(3):
        asked = asyncio.create_task(box.ask_many(4))
        await asyncio.sleep(0.002)
        time.sleep(0.5)  # noqa: ASYNC251
        await asked
    assert (box.pid, box.faults) == (before, {})


async def test_a_device_that_was_idle_is_found_dead_before_anybody_asks(box: Box) -> None:
    before = box.pid
    stop(box)
    async with asyncio.timeout(10):
        await until(lambda: box.accelerator.host_pid not in (before, None))
    assert box.faults == {"hang": 1}
    assert await box.until_it_serves() < RETURN_S


async def test_a_process_that_was_stopped_with_its_child_does_not_blame_the_device(
    device: FakeDevice, net: Compiled
) -> None:
    """Both are stopped for half a second in the middle of runs, and go on at one moment."""
    device.create(latency_s=0.03)
    program = f"""
        import asyncio, os
        from pathlib import Path
        from load.fake_hailo.device import FakeDevice
        from tests.edge_runtime.accelerator.box import Box
        from tests.edge_runtime.accelerator.networks import Compiled

        async def main():
            box = Box(FakeDevice(Path(os.environ["FAKE_HAILO_DIR"])))
            box.start()
            await box.load(Compiled(Path({str(net.onnx)!r}), Path({str(net.hef)!r}), "hailo8"))
            await box.until_it_serves()
            print(box.pid, flush=True)
            loop = asyncio.get_running_loop()
            end = loop.time() + 3
            while loop.time() < end or box.answered["hailo"] <= 30:
                await box.ask()
            print(box.faults, flush=True)
            await box.close()
        asyncio.run(main())
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(program),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    child = int(await process.stdout.readline())
    for _ in range(3):
        await asyncio.sleep(0.15)
        os.kill(process.pid, signal.SIGSTOP)
        os.kill(child, signal.SIGSTOP)
        await asyncio.sleep(0.5)
        os.kill(process.pid, signal.SIGCONT)
        os.kill(child, signal.SIGCONT)
    output, _ = await process.communicate()
    assert output.decode().split("\n")[0] == "{}"


async def test_nothing_is_left_of_hosts_that_died(box: Box) -> None:
    await box.ask_many(10)
    before = descriptors()
    for _ in range(3):
        kill(box)
        box.note()
        await until(lambda: box.accelerator.host_pid not in (None, *box.pids))
        await box.ask_many(5)
    await until(lambda: box.model().is_loaded)
    assert descriptors() == before
    assert mapped_tensors() == 1


async def test_loading_and_unloading_while_hosts_die_serves_everybody(
    box: Box, other_net: Compiled
) -> None:
    dice = random.Random(7)
    is_over = False

    async def turn_over(name: str) -> None:
        while not is_over:
            await box.load(other_net, name)
            for _ in range(dice.randrange(4)):
                await box.ask_many(2, name)
            await box.engine.unload(name, "1")

    async def use() -> None:
        while not is_over:
            await box.ask_many(4)

    tasks = [asyncio.create_task(work) for work in (turn_over("a"), turn_over("b"), use())]
    for _ in range(6):
        await asyncio.sleep(dice.uniform(0.1, 0.7))
        if box.accelerator.host_pid is not None:
            box.note()
            kill(box)
    is_over = True
    await asyncio.gather(*tasks)
    await until(lambda: box.model().free_slots == SLOTS)
    assert set(box.faults) <= {"died"}


async def test_a_model_loads_beside_others_while_the_device_is_busy(
    box: Box, other_net: Compiled
) -> None:
    async def load() -> None:
        for turn in range(4):
            await box.load(other_net, "other", max_batch_size=turn + 1)

    await asyncio.gather(load(), *[box.ask_many(20) for _ in range(4)])
    assert box.faults == {}
    assert await box.ask(model="other") == "hailo"


async def test_a_hailo_10h_serves_alike(device: FakeDevice, tmp_path: Path) -> None:
    device.create(architecture="HAILO10H")
    box = Box(device)
    box.start()
    await box.load(networks.make(tmp_path / "net", "hailo10h"))
    await box.until_it_serves()
    assert box.accelerator.info["library_version"] == "5.2.0"
    kill(box)
    await box.ask_many(5)
    assert await box.until_it_serves() < RETURN_S
    await box.close()


async def test_closing_while_it_starts_leaves_no_child(device: FakeDevice) -> None:
    accelerator = HailoAccelerator([sys.executable], str(DRIVER_PATH))
    accelerator.start()
    await until(lambda: accelerator.host_pid is not None)
    pid = accelerator.host_pid
    assert pid is not None
    await accelerator.close()
    assert not is_alive(pid)
    assert not is_known(pid)


async def test_an_engine_whose_accelerator_was_never_started_serves_on_the_processor(
    net: Compiled, device: FakeDevice
) -> None:
    accelerator = HailoAccelerator([sys.executable], str(DRIVER_PATH))
    engine = Engine(EngineOptions(threads=1), accelerator=accelerator)
    await engine.load(net.source())
    assert engine.runner("m", "1").ladder.reasons() == ["hailo: starting"]
    await engine.close()
    await accelerator.close()


async def test_the_next_interpreter_is_used_where_the_first_has_no_numpy(
    device: FakeDevice, net: Compiled, tmp_path: Path
) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(0o755)
    box = Box(device, [str(bare), sys.executable])
    box.start()
    await box.load(net)
    assert await box.until_it_serves() < RETURN_S
    assert box.accelerator.counts.starts == 2
    await box.close()


def test_the_interpreters_to_try_are_the_one_that_is_set_or_the_system_s_and_our_own() -> None:
    assert interpreters("/opt/python") == ["/opt/python"]
    assert interpreters("")[-1] == sys.executable or sys.executable == "/usr/bin/python3"
    assert isinstance(has_signs(), bool)


# Another interpreter, as on a box whose vendor's binding wants numpy 1.x.


@pytest.fixture(scope="module")
def old_numpy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with numpy 1.x and nothing of ours."""
    where = tmp_path_factory.mktemp("old") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(where)], check=True)
    site = next(where.glob("lib/python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    wanted = ["--no-deps", "--no-compile", "--target", str(site), "numpy<2", "onnxruntime<1.24"]
    done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no numpy 1.x from the package index: {done.stderr.strip()[-200:]}")
    python = where / "bin" / "python"
    ask = [str(python), "-c", "import numpy; print(numpy.__version__)"]
    assert subprocess.run(ask, capture_output=True, check=True).stdout.startswith(b"1.")
    return str(python)


@pytest.mark.timeout(300)
async def test_a_host_under_numpy_1_answers_right(
    device: FakeDevice, net: Compiled, old_numpy: str
) -> None:
    box = Box(device, [old_numpy])
    box.start()
    await box.load(net)
    await box.until_it_serves()
    assert program_of(box.pid) == old_numpy
    for rows in (1, 5, 20):
        assert await box.ask(rows) == "hailo"
    kill(box)
    await box.ask_many(5)
    assert await box.until_it_serves() < RETURN_S
    await box.close()
