"""The child alone, spoken to as the runtime speaks to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.accelerator import wire
from edge_runtime.accelerator.process import HOST, make_memory
from load.fake_hailo.device import DRIVER_PATH, FakeDevice
from tests.edge_runtime.accelerator import networks
from tests.edge_runtime.accelerator.networks import Compiled, assert_right, with_outputs
from tests.edge_runtime.accelerator.processes import ROOT, descriptors, is_alive

PATIENCE_S = 20.0


class Child:
    """A host with the far end of its socket."""

    def __init__(
        self, python: str = sys.executable, driver: str = str(DRIVER_PATH), parent: int = 0
    ) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE_S)
        with theirs:
            self.process = subprocess.Popen(
                [python, str(HOST), str(theirs.fileno()), str(parent or os.getpid()), driver],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        self.memory: dict[int, Any] = {}
        self.sensed: list[Any] = []

    def hear(self) -> tuple[bytes, bytes]:
        """Return the next message that is not about sensors; an empty one at its end."""
        while True:
            try:
                message = self.socket.recv(wire.MAX_MESSAGE)
            except ConnectionResetError:  # it left something unread
                message = b""
            if message[:1] != wire.SENSED:
                return message[:1], message[1:]
            self.sensed.append(wire.decode(message[1:]))

    def hello(self) -> Any:
        kind, body = self.hear()
        assert kind == wire.HELLO
        return wire.decode(body)

    def load(self, model: int, path: Path, net: Compiled) -> Any:
        slots = net.slots()
        descriptor, self.memory[model] = make_memory(slots.size_bytes)
        message = wire.load_message(model, str(path), slots)
        socket.send_fds(self.socket, [message], [descriptor])
        os.close(descriptor)
        kind, body = self.hear()
        assert kind == wire.LOADED
        return wire.decode(body)

    def run(self, job: int, model: int, slot: int, rows: int) -> None:
        self.socket.send(wire.RUN + wire.RUN_BODY.pack(job, model, slot, rows))

    def done(self) -> tuple[int, int, str]:
        """Return the job, its status and its text."""
        kind, body = self.hear()
        assert kind == wire.DONE, (kind, body)
        job, status, _ = wire.DONE_BODY.unpack_from(body)
        return job, status, body[wire.DONE_BODY.size :].decode()

    def end(self) -> int:
        return self.process.wait(PATIENCE_S)

    def descriptors(self) -> int:
        return descriptors(self.process.pid)

    def close(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child(device: FakeDevice) -> Iterator[Child]:
    child = Child()
    yield child
    child.close()


@pytest.fixture
def greeted(child: Child) -> Child:
    assert child.hello()["architecture"] == "hailo8"
    return child


def test_it_greets_loads_runs_and_ends_with_the_socket(
    child: Child, net: Compiled, device: FakeDevice
) -> None:
    hello = child.hello()
    assert hello == {
        "architecture": "hailo8",
        "library_version": "4.23.0",
        "firmware_version": "4.23.0",
    }
    assert child.load(7, net.hef, net) == {"model": 7}
    slots = net.slots()
    for job, (slot, rows) in enumerate([(0, 1), (1, 4), (2, 3)]):
        (x,), outputs = slots.views(child.memory[7], slot)
        x[:rows] = net.images(rows, seed=job)
        child.run(job, 7, slot, rows)
        assert child.done() == (job, 0, "")
        found = [array[:rows] for array in outputs]
        assert_right(net, x[:rows], dict(zip(["map", "scores"], found, strict=True)))
    assert device.is_in_use
    child.socket.close()
    assert child.end() == 0
    assert not device.is_in_use


def test_it_tells_how_warm_it_is_from_the_start(greeted: Child, net: Compiled) -> None:
    greeted.load(1, net.hef, net)
    assert 20 < greeted.sensed[0]["temperature_c"] < 60
    assert greeted.sensed[0]["throttling_level"] == -1


def test_a_bad_hef_is_told_by_its_status_and_the_next_one_is_loaded(
    greeted: Child, net: Compiled, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.hef"
    bad.write_bytes(b"rubbish")
    before = greeted.descriptors()
    for model, (path, status) in enumerate(
        [
            (bad, 26),
            (tmp_path / "gone.hef", 13),
            (with_outputs(net, tmp_path / "nms.hef", is_nms=True), 2),
            (with_outputs(net, tmp_path / "flat.hef", shape=(1, 1, 7)), 2),
        ]
    ):
        answer = greeted.load(model, path, net)
        assert answer["model"] == model
        assert answer["error"]
        assert answer["status"] == status
    assert greeted.descriptors() == before
    assert greeted.load(9, net.hef, net) == {"model": 9}


def test_memory_that_is_too_small_is_a_failed_load(greeted: Child, net: Compiled) -> None:
    descriptor, memory = make_memory(64)
    message = wire.load_message(1, str(net.hef), net.slots())
    socket.send_fds(greeted.socket, [message], [descriptor])
    os.close(descriptor)
    memory.close()
    assert "ValueError" in wire.decode(greeted.hear()[1])["error"]
    assert greeted.load(2, net.hef, net) == {"model": 2}


def test_a_hef_of_another_architecture_is_told(greeted: Child, net: Compiled) -> None:
    other = networks.make(net.hef.parent / "8l", "hailo8l")
    assert greeted.load(1, other.hef, net)["status"] == 93


def test_a_run_of_a_model_that_is_not_there_is_told(greeted: Child, net: Compiled) -> None:
    greeted.run(5, 1, 0, 1)
    job, status, text = greeted.done()
    assert (job, status) == (5, -1)
    assert "KeyError" in text
    greeted.load(1, net.hef, net)
    greeted.socket.send(wire.UNLOAD + wire.encode({"model": 1}))
    greeted.socket.send(wire.UNLOAD + wire.encode({"model": 1}))
    greeted.run(6, 1, 0, 1)
    assert greeted.done()[:2] == (6, -1)


def test_loading_and_unloading_again_and_again_keeps_no_descriptor(
    greeted: Child, net: Compiled
) -> None:
    greeted.load(1, net.hef, net)
    before = greeted.descriptors()
    for turn in range(20):
        greeted.socket.send(wire.UNLOAD + wire.encode({"model": turn + 1}))
        greeted.memory.clear()
        greeted.load(turn + 2, net.hef, net)
    assert greeted.descriptors() <= before + 1


def test_a_failed_run_is_told_with_the_driver_s_words(
    greeted: Child, net: Compiled, device: FakeDevice
) -> None:
    greeted.load(1, net.hef, net)
    device.fail(87, after_frames=2)
    greeted.run(1, 1, 0, 4)
    job, status, text = greeted.done()
    assert (job, status) == (1, 87)
    assert "HAILO_DRIVER_TIMEOUT" in text


def test_a_segmentation_fault_shows_as_the_end_of_the_socket(
    greeted: Child, net: Compiled, device: FakeDevice
) -> None:
    greeted.load(1, net.hef, net)
    device.segfault()
    greeted.run(1, 1, 0, 1)
    assert greeted.hear() == (b"", b"")
    assert greeted.end() == -signal.SIGSEGV
    assert not device.is_in_use


@pytest.mark.parametrize("kind", ["missing", "mismatch"])
def test_a_binding_that_cannot_be_imported_is_told(device: FakeDevice, kind: str) -> None:
    if kind == "missing":
        device.remove_library()
    else:
        device.mismatch_binding("4.20.0")
    child = Child()
    hello = child.hello()
    assert hello["stage"] == "import"
    assert ("libhailort" if kind == "missing" else "does not match") in hello["error"]
    assert child.hear() == (b"", b"")
    assert child.end() == 0
    child.close()


def test_an_interpreter_without_the_binding_says_so(device: FakeDevice) -> None:
    child = Child(driver="")
    hello = child.hello()
    assert (hello["stage"], "hailo_platform" in hello["error"]) == ("import", True)
    child.close()


def test_an_interpreter_without_numpy_says_so(device: FakeDevice, tmp_path: Path) -> None:
    """So that the next one is tried: the system's has often none."""
    (tmp_path / "numpy.py").write_text("raise ImportError('no numpy here')")
    child = Child(driver=str(tmp_path))
    hello = child.hello()
    assert (hello["stage"], hello["error"]) == ("import", "ImportError: no numpy here")
    child.close()


def test_without_a_driver_path_the_working_folder_shadows_nothing(
    device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hailo_platform.py").write_text("raise ImportError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    child = Child(driver="")
    assert "the wrong one" not in child.hello()["error"]
    child.close()


@pytest.mark.parametrize("status", [64, 74, 76])
def test_a_device_that_cannot_be_opened_is_told_by_its_status(
    device: FakeDevice, status: int
) -> None:
    device.refuse_open(status)
    child = Child()
    hello = child.hello()
    assert (hello["stage"], hello["status"]) == ("open", status)
    assert child.end() == 0
    child.close()


def test_a_second_host_does_not_get_the_device(greeted: Child) -> None:
    second = Child()
    assert second.hello()["status"] == 74
    second.close()


def test_signals_that_a_terminal_or_a_manager_sends_to_all_are_the_runtime_s_business(
    greeted: Child, net: Compiled
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        greeted.process.send_signal(number)
    assert greeted.load(1, net.hef, net) == {"model": 1}
    greeted.run(1, 1, 0, 1)
    assert greeted.done() == (1, 0, "")


def test_a_host_that_was_orphaned_before_it_began_ends_without_a_word(device: FakeDevice) -> None:
    child = Child(parent=1)
    assert child.hear() == (b"", b"")
    assert child.end() == 1
    child.close()


def test_it_dies_with_its_parent_even_when_it_is_stuck(
    device: FakeDevice, net: Compiled, tmp_path: Path
) -> None:
    device.hang()
    program = f"""
        import os, signal
        from pathlib import Path
        from tests.edge_runtime.accelerator.networks import Compiled
        from tests.edge_runtime.accelerator.test_hailo_host import Child
        net = Compiled(Path({str(net.onnx)!r}), Path({str(net.hef)!r}), "hailo8")
        child = Child()
        child.hello()
        child.load(1, net.hef, net)
        child.run(1, 1, 0, 1)
        print(child.process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    parent = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert parent.returncode == -signal.SIGKILL
    pid = int(parent.stdout)
    until = time.monotonic() + PATIENCE_S
    while is_alive(pid):
        assert time.monotonic() < until
        time.sleep(0.005)
    assert not device.is_in_use
