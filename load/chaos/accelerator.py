"""What happens to the accelerator, and how it is undone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from load.chaos.schedule import Fault
from load.chaos.watch import Watch
from load.fake_hailo.device import FakeDevice

HOT_C: Final = 120.0
OTHER_DRIVER: Final = "4.21.0"
SECOND_KILL_S: Final = 0.3
NEW_HOST_S: Final = 5.0
UNDER_WAY: Final = (
    "kill",
    "kill-twice",
    "mismatch",
    "open-refused",
    "stop",
    "segfault",
    "fail",
    "fail-batch",
    "hang-reopen",
    "vanish",
)
"""Kinds before which requests are put under way."""
_HOST: Final = b"accelerator/host"


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that has happened.

    at_s: when, the last time if more than once; heal: what lifts it, None where it strikes once;
    kills: when a host was killed.
    """

    at_s: float
    heal: Callable[[], None] | None = None
    kills: tuple[float, ...] = ()


async def strike(fault: Fault, device: FakeDevice, watch: Watch) -> Struck:
    """Let a fault happen."""
    kills: list[float] = []
    if fault.kind == "kill-twice":
        first = watch.accelerator.get("host_pid")
        kills.append(_signal_host(watch, signal.SIGKILL))
        await _await_another_host(watch, first)
        await asyncio.sleep(SECOND_KILL_S)
    if fault.kind in _ORDERS:
        _ORDERS[fault.kind](device, fault.value)
    struck_s = time.monotonic()
    if fault.kind in _SIGNALS:
        struck_s = _signal_host(watch, _SIGNALS[fault.kind])
    if _SIGNALS.get(fault.kind) is signal.SIGKILL:
        kills.append(struck_s)
    return Struck(struck_s, device.heal if fault.lasts_s else None, tuple(kills))


_Order = Callable[[FakeDevice, int], None]
_ORDERS: Final[Mapping[str, _Order]] = {
    "hang-reopen": lambda device, _: device.hang(until="reopened"),
    "hang-reset": lambda device, _: device.hang(until="reset"),
    "hang-release": lambda device, _: device.hang(blocks_release=True),
    "vanish": lambda device, _: device.vanish(),
    "slow-5": lambda device, _: device.slow(5.0),
    "slow-20": lambda device, _: device.slow(20.0),
    "segfault": lambda device, _: device.segfault(),
    "fail": lambda device, status: device.fail(status),
    "fail-batch": lambda device, status: device.fail(status, after_frames=2),
    "refuse": lambda device, status: device.fail(status),
    "heat": lambda device, _: device.set_temperature(HOT_C),
    "mismatch": lambda device, _: device.update_driver(OTHER_DRIVER),
    "open-refused": lambda device, status: device.refuse_open(status),
}
_SIGNALS: Final[Mapping[str, signal.Signals]] = {
    "kill": signal.SIGKILL,
    "kill-twice": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    # Found when the device is opened anew: an update also ends who has it open.
    "mismatch": signal.SIGKILL,
    "open-refused": signal.SIGKILL,
}


def _signal_host(watch: Watch, number: signal.Signals) -> float:
    """Send a signal to the host that was seen last, if it is still there; return when."""
    found = watch.accelerator.get("host_pid")
    if isinstance(found, int):
        with contextlib.suppress(OSError):  # it has ended by itself
            if _HOST in Path(f"/proc/{found}/cmdline").read_bytes():
                os.kill(found, number)
    return time.monotonic()


async def _await_another_host(watch: Watch, first: object) -> None:
    until = time.monotonic() + NEW_HOST_S
    while time.monotonic() < until:
        if watch.accelerator.get("host_pid") not in (first, None):
            return
        await asyncio.sleep(0.02)
