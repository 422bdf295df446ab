from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from load.fake_hailo.device import DRIVER_PATH, FakeDevice
from load.fake_hailo.hef import compile_hef
from tests.edge_runtime.onnx_models import identity
from tests.load.fake_hailo.rig import HEF_FILE, Rig, load_driver


@pytest.fixture(scope="package", autouse=True)
def _quick_collections() -> Iterator[None]:
    """Opening a device collects garbage, as the vendor's does; spare it what others made."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def device(tmp_path: Path) -> FakeDevice:
    """A whole Hailo-8, in a library of the line 4.x."""
    device = FakeDevice(tmp_path / "device")
    device.create()
    return device


@pytest.fixture
def load(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """Imports the driver into this process, as the device is at that moment."""
    monkeypatch.setenv("FAKE_HAILO_DIR", str(device.folder))
    monkeypatch.syspath_prepend(str(DRIVER_PATH))
    yield load_driver
    device.heal()
    pipeline = sys.modules.get("hailo_platform._native.pipeline")
    if pipeline is not None:
        pipeline._close_all()
        atexit.unregister(pipeline._close_all)  # it would keep this import of the driver alive


@pytest.fixture
def hailo(load: Callable[[], Any]) -> Any:
    """The driver's package."""
    return load()


@pytest.fixture(scope="session")
def hef(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """y = x over four channels, for a Hailo-8: a code comes out as it went in."""
    model = identity(tmp_path_factory.mktemp("hef") / "same.onnx", "FP32", ("n", 4))
    rows = np.linspace(0.0, 255.0, 8, dtype=np.float32).reshape(2, 4)
    return compile_hef(model, {"x": rows}, architecture="hailo8")


@pytest.fixture
def rig(hailo: Any, hef: bytes) -> Iterator[Rig]:
    """The opened device with that network."""
    with Rig(hailo, hef) as rig:
        yield rig


@pytest.fixture
def child_hef(device: FakeDevice, hef: bytes) -> None:
    """Leaves that network where children look for it."""
    (device.folder / HEF_FILE).write_bytes(hef)
