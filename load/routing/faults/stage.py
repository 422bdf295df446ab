"""The cluster of a run: a head, an edge box with a fake device, and what is between them.

As root the box has a network of its own, joined to the head's by a link on which everything can get
lost, as behind a router: who sends is neither answered nor refused. Without root all processes of
the box are stopped instead, which from outside looks much the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import psutil

from edge_runtime.packages import Incoming
from load.access import Access
from load.chaos.box import Box, install
from load.chaos.head import Head
from load.chaos.network import Namespace
from load.fake_hailo.device import FakeDevice
from load.routing.faults import models
from load.waiting import python_path

LOOPBACK: Final = "127.0.0.1"
VERSION: Final = "1"
How = Literal["network", "stopped"]


@dataclass(slots=True)
class Stage:
    """network: None where the box is stopped instead."""

    head: Head
    box: Box
    device: FakeDevice
    network: Namespace | None
    _stopped: Sequence[psutil.Process] = ()

    @property
    def how(self) -> How:
        return "stopped" if self.network is None else "network"

    @property
    def access(self) -> Access:
        return Access(LOOPBACK, self.head.rest_port, self.head.token())

    async def come(self) -> None:
        """Start the box; it joins when it can. Raises BoxError."""
        self.box.start()
        await self.box.ready()

    async def go_away(self) -> None:
        """Let nothing pass between the box and the others."""
        if self.network is not None:
            await asyncio.to_thread(self.network.lose)
            return
        self._stopped = await asyncio.to_thread(self.box.processes)
        _signal(self._stopped, signal.SIGSTOP)

    async def come_back(self) -> None:
        """End what `go_away` began."""
        if self.network is not None:
            await asyncio.to_thread(self.network.deliver)
            return
        _signal(self._stopped, signal.SIGCONT)
        self._stopped = ()


@asynccontextmanager
async def built(cloud_s: float, device_s: float) -> AsyncIterator[Stage]:
    """Start a head that serves both models, and prepare a box; all of it is gone afterwards.

    cloud_s: what a run takes in the cloud; device_s: a frame on the box's device. Raises BoxError.
    """
    root = Path(tempfile.mkdtemp(prefix="psr-", dir="/tmp"))  # sockets want a short path
    async with AsyncExitStack() as closing:
        closing.callback(shutil.rmtree, root, ignore_errors=True)
        artifacts = await asyncio.to_thread(models.build, root / "models")
        device = FakeDevice(root / "device")
        device.create(latency_s=device_s)
        network = _network(closing)
        box = Box(root, device, None, network)
        box.home.root.mkdir(mode=0o700)
        box.configure()
        signature = await asyncio.to_thread(models.signature, artifacts)
        hef = [each for each in artifacts if each.format == "hef"]  # with nothing to fall back on
        for name, options in models.MODELS.items():
            install(box.packages, name, VERSION, hef, signature, **options)
        waits = {"PYTHONPATH": python_path(root / "waits", cloud_s)}
        head = Head(root, LOOPBACK if network is None else network.outside, extra=waits)
        head.admit(box.home)
        closing.push_async_callback(head.down)
        await head.up()
        box.head = head.gcs
        for name in models.MODELS:
            await _serve(head, name, artifacts)
        stage = Stage(head, box, device, network)
        closing.push_async_callback(box.stop)
        closing.push_async_callback(_undone, stage)
        yield stage


def _network(closing: AsyncExitStack) -> Namespace | None:
    """Return a network for the box, None where this process may not make one."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("tc") is None:
        return None
    network = Namespace.of_this_process()
    closing.callback(network.remove)
    try:
        network.make()
        network.lose()
        network.deliver()
    except subprocess.CalledProcessError:  # a container without the right to
        return None
    return network


async def _serve(head: Head, name: str, artifacts: Sequence[Incoming]) -> None:
    files = [
        f"{each.format}{'/' + each.target if each.target else ''}={each.path}" for each in artifacts
    ]
    await head.must("model", "register", name, VERSION, *files)
    options = [f"--option={key}={value}" for key, value in models.MODELS[name].items()]
    await head.must("model", "serve", f"{name}@{VERSION}", "--placement=edge,cloud", *options)


async def _undone(stage: Stage) -> None:
    """A box that is stopped, or cannot be told, would not end."""
    with contextlib.suppress(subprocess.CalledProcessError):
        await stage.come_back()


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
