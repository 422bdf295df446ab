from __future__ import annotations

import atexit
import gc
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from load.fake_hailo.device import DRIVER_PATH, FakeDevice
from tests.edge_runtime.accelerator import networks
from tests.edge_runtime.accelerator.bench import Bench
from tests.edge_runtime.accelerator.networks import Compiled


@pytest.fixture
def bench() -> Iterator[Bench]:
    """An accelerator over the stand-in, started; nothing of it may be left at the end."""
    bench = Bench()
    bench.start()
    yield bench
    bench.finish()


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """A whole Hailo-8, which children of this process find."""
    device = FakeDevice(tmp_path / "device")
    device.create()
    monkeypatch.setenv("FAKE_HAILO_DIR", str(device.folder))
    return device


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return networks.make(tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="session")
def other_net(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return networks.make(tmp_path_factory.mktemp("other"), seed=2)


_HOST = "edge_runtime.accelerator.host.hailo"


@pytest.fixture
def hailo(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The host's side of the driver in this process, over a driver that is imported anew."""
    monkeypatch.syspath_prepend(str(DRIVER_PATH))
    _forget_driver()
    gc.freeze()  # opening a device collects garbage, as the vendor's does
    yield importlib.import_module(_HOST)
    gc.unfreeze()
    device.heal()
    pipeline = sys.modules["hailo_platform._native.pipeline"]
    pipeline._close_all()
    atexit.unregister(pipeline._close_all)
    _forget_driver()


def _forget_driver() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "hailo_platform"]:
        del sys.modules[name]
    sys.modules.pop(_HOST, None)
