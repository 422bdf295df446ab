"""An opened fake device with a configured network, for tests here and for their child processes.

Children run `python -c` in the repository with the environment that `FakeDevice` gives; they
import this module for the same few steps.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from load.fake_hailo.device import FakeDevice

ROOT = Path(__file__).parents[3]
HEF_FILE = "model.hef"


class Rig:
    """A device opened with a scheduler, and one network on it."""

    def __init__(self, hailo: Any, hef: bytes) -> None:
        params = hailo.VDevice.create_params()
        params.scheduling_algorithm = hailo.HailoSchedulingAlgorithm.ROUND_ROBIN
        self.errors = importlib.import_module("hailo_platform.pyhailort.pyhailort")
        self.vdevice = hailo.VDevice(params)
        self.model = self.vdevice.create_infer_model(hef)
        self.configured = self.model.configure()

    @staticmethod
    def of_child() -> Rig:
        """The rig of a child process, on the HEF that the test left in the device's folder."""
        hef = Path(os.environ["FAKE_HAILO_DIR"], HEF_FILE).read_bytes()
        return Rig(importlib.import_module("hailo_platform"), hef)

    def __enter__(self) -> Rig:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Destroy the network and release the device."""
        self.configured.__exit__(None, None, None)
        self.vdevice.release()

    def frame(self, code: int = 0) -> Frame:
        """Bindings of new buffers, every input byte being `code`."""
        return Frame(self, code)

    def run(self, code: int = 0) -> NDArray[np.uint8]:
        """Run one frame; its only output."""
        frame = self.frame(code)
        self.configured.run([frame.bindings], 5000)
        return frame.output


class Frame:
    """The buffers of one frame."""

    def __init__(self, rig: Rig, code: int) -> None:
        self.bindings = rig.configured.create_bindings()
        for stream in rig.model.inputs:
            buffer = np.full(stream.shape, code, np.uint8)
            self.bindings.input(stream.name).set_buffer(buffer)
        self.outputs = {s.name: np.zeros(s.shape, np.uint8) for s in rig.model.outputs}
        for name, output in self.outputs.items():
            self.bindings.output(name).set_buffer(output)

    @property
    def output(self) -> NDArray[np.uint8]:
        """The array of the only output."""
        (output,) = self.outputs.values()
        return output


def load_driver() -> ModuleType:
    """Import the driver anew: it reads its device at import."""
    for name in [name for name in sys.modules if name.split(".")[0] == "hailo_platform"]:
        del sys.modules[name]
    return importlib.import_module("hailo_platform")


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes within ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def status_of(error: BaseException) -> int:
    """The status number of a mapped exception that a call raised."""
    assert error.__cause__ is not None
    return int(error.__cause__.args[0])


def start_child(device: FakeDevice, code: str) -> subprocess.Popen[str]:
    """Start Python code in a process of its own, with the driver on its path."""
    environment = {**os.environ, **device.environment()}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_child(device: FakeDevice, code: str) -> tuple[int, str, str]:
    """Run Python code so; its exit code, its output, its errors."""
    process = start_child(device, code)
    try:
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, output, errors
