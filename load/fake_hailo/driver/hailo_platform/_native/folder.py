"""The folder that stands for the hardware: what the device is told, and what it has done.

`device.json` is written by whoever commands the device (`load/fake_hailo/device.py`) and is
read again whenever it has changed. The driver never writes it. What the driver has to
remember beyond a crash is in two files of its own: `counters`, a mapped page that survives
the death of its process, and `fired`, the ids of faults that have happened.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from . import thermal

ORDERS = "device.json"
COUNTERS = "counters"
FIRED = "fired"
LOCK = "device.lock"

# frames, throttling level, temperature, load, time of both, protection off, chip resets
_LAYOUT = struct.Struct("<QqdddQQ")
_FRAMES, _HEAT, _PROTECTION, _RESETS = 0, 8, 40, 48
_UINT = struct.Struct("<Q")
_HEAT_LAYOUT = struct.Struct("<qddd")


@dataclass(frozen=True)
class Fault:
    """Something that happens once so many frames have been run.

    kind: fail, segfault, vanish or hang; until: what ends a hang (healed, reopened, reset).
    """

    id: str
    kind: str
    at_frame: int
    status: int = 0
    until: str = ""
    blocks_release: bool = False


@dataclass(frozen=True)
class Orders:
    """What `device.json` says; without one there is a library and no device.

    attachment counts how often the device was plugged in; open_status: 0, or why it cannot
    be opened; driver_version: empty where no kernel module is loaded.
    """

    device_id: str = "0001:01:00.0"
    architecture: str = "HAILO8"
    present: bool = False
    attachment: int = 0
    library_version: str = "4.23.0"
    binding_version: str = ""
    library_missing: bool = False
    driver_version: str = "4.23.0"
    firmware_version: str = "4.23.0"
    open_status: int = 0
    latency_s: float = 0.001
    further_s: float | None = None
    slowness: float = 1.0
    queue_size: int = 2
    ambient_c: float = 25.0
    thermal_s: float = 30.0
    power_sensor: bool = True
    faults: tuple[Fault, ...] = field(default=())

    @property
    def place(self) -> thermal.Place:
        """What the chip's warmth depends on besides its work."""
        return thermal.Place(self.ambient_c, self.thermal_s)

    def frame_s(self, *, is_first: bool) -> float:
        """What a frame of a job takes at the nominal clock."""
        nominal_s = self.latency_s if is_first or self.further_s is None else self.further_s
        return nominal_s * self.slowness

    @staticmethod
    def of(document: Mapping[str, Any]) -> Orders:
        """Read a document; what it leaves out has its default."""
        known = {f.name for f in fields(Orders)}
        values = {key: value for key, value in document.items() if key in known}
        values["faults"] = tuple(Fault(**fault) for fault in document.get("faults", ()))
        return Orders(**values)


class Folder:
    """The state of one device, shared by every process that has this folder."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._orders = Orders()
        self._seen: tuple[int, ...] | None = None
        self._fired: frozenset[str] = frozenset()
        self._fired_size = -1
        self._counters: mmap.mmap | None = None

    def orders(self) -> Orders:
        """The present orders; costs one `stat` while they have not changed."""
        if self.path is None:
            return self._orders
        try:
            found = (self.path / ORDERS).stat()
        except FileNotFoundError:
            return self._orders
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            self._orders = Orders.of(json.loads((self.path / ORDERS).read_bytes()))
            self._seen = seen
        return self._orders

    def is_present(self) -> bool:
        """Whether the bus shows the device: it is there, and has not dropped off at a frame."""
        orders = self.orders()
        return orders.present and not any(
            fault.kind == "vanish" and self.has_fired(fault) for fault in orders.faults
        )

    def has_fired(self, fault: Fault) -> bool:
        """Whether this fault has happened, in this process or in one before it."""
        if self.path is None:
            return False
        try:
            size = (self.path / FIRED).stat().st_size
        except FileNotFoundError:
            return False
        if size != self._fired_size:
            self._fired = frozenset((self.path / FIRED).read_text().split())
            self._fired_size = size
        return fault.id in self._fired

    def fire(self, fault: Fault) -> None:
        """Remember, also beyond a crash in the next instruction, that this fault has happened."""
        descriptor = os.open(
            self._existing() / FIRED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
        )
        try:
            os.write(descriptor, f"{fault.id}\n".encode())
        finally:
            os.close(descriptor)

    def lock(self) -> int | None:
        """Take the device for this process; None where somebody has it."""
        descriptor = os.open(self._existing() / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    @property
    def frames(self) -> int:
        """Frames run in the device's life."""
        return self._uint(_FRAMES)

    def count_frame(self) -> None:
        """One frame more; only the device's owner counts."""
        self._set_uint(_FRAMES, self.frames + 1)

    @property
    def resets(self) -> int:
        """How often the chip was reset."""
        return self._uint(_RESETS)

    def count_reset(self) -> None:
        """One reset more; it ends the hangs that wait for one, after what they hold up failed."""
        self._set_uint(_RESETS, self.resets + 1)
        for fault in self.orders().faults:
            if fault.until == "reset" and not self.has_fired(fault):
                self.fire(fault)

    @property
    def is_protected(self) -> bool:
        """Whether the chip slows down when it is hot."""
        return not self._uint(_PROTECTION)

    def protect(self, on: bool) -> None:
        """Switch that on or off."""
        self._set_uint(_PROTECTION, not on)

    def heat(self, works_since: float | None = None) -> thermal.Heat:
        """The chip now: it has worked since then, and before that, or without, it rested."""
        orders, now = self.orders(), time.monotonic()
        level, temperature, load, then = _HEAT_LAYOUT.unpack_from(self._page(), _HEAT)
        if not 0.0 < then <= now:  # never used, or used before the host was started
            return thermal.at_rest(orders.ambient_c)
        heat = thermal.Heat(temperature, load, level)
        rested_until = now if works_since is None else max(works_since, then)
        for seconds, works in ((rested_until - then, False), (now - rested_until, True)):
            heat = thermal.after(
                heat, seconds, orders.place, works=works, protected=self.is_protected
            )
        return heat

    def keep_heat(self, heat: thermal.Heat) -> None:
        """Remember how warm the chip is now; only the device's owner does."""
        values = (heat.level, heat.temperature_c, heat.load, time.monotonic())
        _HEAT_LAYOUT.pack_into(self._page(), _HEAT, *values)

    def _existing(self) -> Path:
        if self.path is None:
            raise RuntimeError("FAKE_HAILO_DIR is not set: there is no device")
        return self.path

    def _uint(self, offset: int) -> int:
        return int(_UINT.unpack_from(self._page(), offset)[0])

    def _set_uint(self, offset: int, value: int) -> None:
        _UINT.pack_into(self._page(), offset, value)

    def _page(self) -> mmap.mmap:
        if self._counters is None:
            self._counters = self._map()
        return self._counters

    def _map(self) -> mmap.mmap:
        if self.path is None:
            return mmap.mmap(-1, _LAYOUT.size)
        descriptor = os.open(self.path / COUNTERS, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if os.fstat(descriptor).st_size < _LAYOUT.size:
                os.ftruncate(descriptor, _LAYOUT.size)
            return mmap.mmap(descriptor, _LAYOUT.size)
        finally:
            os.close(descriptor)
