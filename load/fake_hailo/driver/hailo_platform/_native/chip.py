"""An opened device: exclusive to its process, one frame at a time, and able to break.

The device is taken by a lock on a file, which the kernel drops with the process. Faults that
are due happen at the beginning of a frame; a frame that takes long looks again and again
whether the device is still there.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .enums import HailoSchedulingAlgorithm
from .folder import Fault, Folder, Orders
from .library import MAJOR
from .network import Bytes, Network
from .statuses import HARMLESS, REFUSALS, Status, failed

_LOOK_AGAIN_S = 0.01


def default_scheduling() -> HailoSchedulingAlgorithm:
    """4.x Python says NONE, although the C++ default is ROUND_ROBIN; 5.x takes that."""
    if MAJOR >= 5:
        return HailoSchedulingAlgorithm.ROUND_ROBIN
    return HailoSchedulingAlgorithm.NONE


@dataclass
class VDeviceParams:
    """How to open a device."""

    scheduling_algorithm: HailoSchedulingAlgorithm = field(default_factory=default_scheduling)
    group_id: str = "UNIQUE"
    multi_process_service: bool = False
    device_ids: list[str] = field(default_factory=list)
    device_count: int = 1


class Closeable(Protocol):
    """What has to end before the device can be given back."""

    def close(self) -> None:
        """End it."""


class FrameFailed(Exception):
    """A frame, and the job that it belongs to, ended with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Chip:
    """The device while one VDevice holds it; `broken` is what shut its pipelines down, or 0."""

    def __init__(self, folder: Folder, lock: int, params: VDeviceParams) -> None:
        self.folder = folder
        self.device_id = folder.orders().device_id
        self.architecture = folder.orders().architecture
        self.params = params
        self.broken = 0
        self.owner = os.getpid()
        self.active: object = None
        self.pipelines: list[Closeable] = []
        self._lock: int | None = lock
        self._attachment = folder.orders().attachment
        self._resets = folder.resets
        self._one_frame = threading.Lock()

    def compute(
        self,
        network: Network,
        frame: Mapping[str, Bytes],
        stop: threading.Event,
        *,
        is_first: bool = True,
    ) -> dict[str, Bytes]:
        """Run one frame in as much time as the chip would need; FrameFailed when it does not.

        is_first: of its job; those behind it may take less.
        """
        while not self._one_frame.acquire(timeout=_LOOK_AGAIN_S):
            if stop.is_set():
                raise FrameFailed(Status.STREAM_ABORT)
        try:
            begun = time.monotonic()
            heat = self.folder.heat()
            self.folder.keep_heat(heat)
            self._let_faults_happen()
            results = network.run(frame)
            self._work_until_due(begun, heat.slowdown, stop, is_first=is_first)
            self.folder.keep_heat(self.folder.heat(works_since=begun))
            self.folder.count_frame()
            return results
        finally:
            self._one_frame.release()

    def break_down(self, status: int) -> None:
        """Shut all pipelines down for an error, if it is one of those that do."""
        if status not in HARMLESS and not self.broken:
            self.broken = status

    def refusal(self, frames_ahead: int) -> int:
        """The status with which the next call is to be refused, or 0."""
        for fault in self._due(frames_ahead):
            if fault.kind == "fail" and fault.status in REFUSALS:
                self.folder.fire(fault)
                return fault.status
        return 0

    def release(self) -> None:
        """End all pipelines and give the device back; in a forked child it stays the parent's."""
        for pipeline in self.pipelines:
            pipeline.close()
        self.pipelines.clear()
        self.break_down(Status.STREAM_ABORT)
        lock, self._lock = self._lock, None
        if lock is not None and self.owner == os.getpid():
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def hangs_in_release(self) -> bool:
        """Whether even closing the device waits for a hang to end."""
        return any(fault.blocks_release for fault in self._hangs())

    def _let_faults_happen(self) -> None:
        self._check_presence()
        for fault in self._due():
            if fault.kind == "hang" or fault.status in REFUSALS:
                continue
            self.folder.fire(fault)
            if fault.kind == "segfault":
                ctypes.string_at(0)
            raise FrameFailed(fault.status or Status.COMMUNICATION_CLOSED)

    def _work_until_due(
        self, begun: float, slowdown: float, stop: threading.Event, *, is_first: bool
    ) -> None:
        while True:
            self._check_presence()
            orders = self.folder.orders()
            left = begun + orders.frame_s(is_first=is_first) * slowdown - time.monotonic()
            hangs = bool(self._hangs())
            if stop.is_set():
                if not self.hangs_in_release():
                    raise FrameFailed(Status.STREAM_ABORT)
                time.sleep(_LOOK_AGAIN_S)
            elif hangs:
                stop.wait(_LOOK_AGAIN_S)
            elif left > 0:
                stop.wait(min(left, _LOOK_AGAIN_S))
            else:
                return

    def _check_presence(self) -> None:
        is_the_same = self.folder.orders().attachment == self._attachment
        if not (is_the_same and self.folder.is_present() and self.folder.resets == self._resets):
            raise FrameFailed(Status.COMMUNICATION_CLOSED)

    def _hangs(self) -> list[Fault]:
        return [fault for fault in self._due() if fault.kind == "hang"]

    def _due(self, frames_ahead: int = 0) -> list[Fault]:
        faults = self.folder.orders().faults
        if not faults:
            return []
        frames = self.folder.frames + frames_ahead
        return [f for f in faults if f.at_frame <= frames and not self.folder.has_fired(f)]


def scan(folder: Folder) -> list[str]:
    """Ids of the devices that the bus shows to this library's driver."""
    orders = folder.orders()
    return [orders.device_id] if _has_driver(orders) and folder.is_present() else []


def check_access(folder: Folder, wanted: list[str]) -> None:
    """Refuse to open a device whose driver is missing (64), another (76), or that is gone (74)."""
    orders = folder.orders()
    if not _has_driver(orders):
        raise failed(Status.DRIVER_NOT_INSTALLED)
    if orders.driver_version != orders.library_version:
        raise failed(Status.INVALID_DRIVER_VERSION)
    found = scan(folder)
    if not found or any(device_id not in found for device_id in wanted):
        raise failed(Status.OUT_OF_PHYSICAL_DEVICES)


def open_chip(folder: Folder, params: VDeviceParams, device_ids: list[str]) -> Chip:
    """Open the device; 73 or 74 when somebody has it.

    With `device_ids` the binding makes params of its own, and drops those that it was given.
    """
    if device_ids and params.device_ids:
        print("device_ids are set in the params and as an argument", file=sys.stderr)
        raise failed(Status.INVALID_OPERATION)
    if device_ids:
        params = VDeviceParams(device_ids=device_ids, device_count=len(device_ids))
    if params.multi_process_service:  # nobody runs the vendor's service here
        raise failed(Status.RPC_FAILED)
    orders = folder.orders()
    if orders.open_status:
        raise failed(orders.open_status)
    check_access(folder, params.device_ids)
    if params.device_count > 1:
        raise failed(Status.OUT_OF_PHYSICAL_DEVICES)
    lock = folder.lock()
    if lock is None:
        raise failed(Status.DEVICE_IN_USE if params.device_ids else Status.OUT_OF_PHYSICAL_DEVICES)
    for fault in orders.faults:
        if fault.until == "reopened" and fault.at_frame <= folder.frames:
            folder.fire(fault)
    return Chip(folder, lock, params)


def _has_driver(orders: Orders) -> bool:
    # The kernel modules of the two families are different, and so are their libraries.
    is_10h = orders.architecture == "HAILO10H"
    return bool(orders.driver_version) and is_10h == (MAJOR >= 5)
