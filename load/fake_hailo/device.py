"""Commands the fake device: what it is, what breaks, when it is whole again.

The device is a folder. `create` makes it, a child process with `environment()` then finds the
driver and the device, and every other method here is something that happens to the hardware
while that child runs. Faults with `after_frames` happen once so many more frames have been
run; each happens once. Reading back goes through files that only the driver writes.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

DRIVER_PATH = Path(__file__).parent / "driver"
"""The folder for the front of a child's `sys.path`."""

MARKER = 0xA5
"""Every byte of every output of a failed job."""

Architecture = Literal["HAILO8", "HAILO8L", "HAILO10H"]
Cure = Literal["healed", "reopened", "reset"]

_LIBRARIES: Mapping[Architecture, str] = {
    "HAILO8": "4.23.0",
    "HAILO8L": "4.23.0",
    "HAILO10H": "5.2.0",
}
_ROOM_C = 25.0
# As in driver/hailo_platform/_native/folder.py.
_COUNTERS = struct.Struct("<QqdddQQ")


class FakeDevice:
    """One device, by its folder; any number of these may command the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(
        self,
        *,
        architecture: Architecture = "HAILO8",
        library_version: str | None = None,
        driver_version: str | None = None,
        firmware_version: str | None = None,
        latency_s: float = 0.001,
        further_s: float | None = None,
        queue_size: int = 2,
        ambient_c: float = _ROOM_C,
        thermal_s: float = 30.0,
        power_sensor: bool = True,
    ) -> None:
        """Make a new, whole device, plugged in and at rest.

        Versions: 4.23.0, or 5.2.0 for a Hailo-10H, and all the same; latency_s: what a frame
        takes at the nominal clock; further_s: what each but the first of a job takes, when that is
        less; queue_size: what `get_async_queue_size()` says; thermal_s:
        time constant of warming up; power_sensor: boards for the Pi have none.
        """
        library = library_version or _LIBRARIES[architecture]
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._changing() as orders:
            attachment = orders.get("attachment", 0) + 1
            orders.clear()
            orders.update(
                architecture=architecture,
                attachment=attachment,
                present=True,
                library_version=library,
                driver_version=driver_version or library,
                firmware_version=firmware_version or library,
                latency_s=latency_s,
                further_s=further_s,
                queue_size=queue_size,
                ambient_c=ambient_c,
                thermal_s=thermal_s,
                power_sensor=power_sensor,
                faults=[],
            )
            # In place: a driver that still runs has this page mapped.
            descriptor = os.open(self.folder / "counters", os.O_RDWR | os.O_CREAT, 0o644)
            os.write(descriptor, bytes(_COUNTERS.size))
            os.close(descriptor)

    def environment(self) -> dict[str, str]:
        """What a child process needs to find the driver and this device."""
        return {"FAKE_HAILO_DIR": str(self.folder), "PYTHONPATH": str(DRIVER_PATH)}

    def vanish(self, after_frames: int = 0) -> None:
        """Drop off the bus: running jobs fail, scans find nothing, opening is 74."""
        if after_frames:
            self._add_fault("vanish", after_frames)
        else:
            self._set(present=False)

    def put_back(self) -> None:
        """Plug it in again; whoever had it open before has to open it anew."""
        with self._changing() as orders:
            _plug_in(orders)

    def hang(
        self, after_frames: int = 0, *, until: Cure = "healed", blocks_release: bool = False
    ) -> None:
        """Complete no more frames until the cure: `heal`, opening it anew, or a chip reset.

        A hung frame that the cure releases completes late, into whatever array it was given.
        blocks_release: even closing the device hangs.
        """
        self._add_fault("hang", after_frames, until=until, blocks_release=blocks_release)

    def slow(self, factor: float) -> None:
        """Take so many times longer for each frame; 1 is the usual."""
        self._set(slowness=factor)

    def fail(self, status: int, after_frames: int = 0) -> None:
        """End one job with this status, in the frame after so many.

        2, 6, 61, 81 and 82 are refusals instead: one `run_async` raises them, nothing breaks.
        """
        self._add_fault("fail", after_frames, status=status)

    def refuse_open(self, status: int) -> None:
        """Let every attempt to open the device end with this status; 0 allows it again."""
        self._set(open_status=status)

    def segfault(self, after_frames: int = 0) -> None:
        """Kill the process that runs the frame after so many with a segmentation fault."""
        self._add_fault("segfault", after_frames)

    def update_driver(self, version: str) -> None:
        """Change the kernel's driver, as an OS update does; an empty text unloads it."""
        self._set(driver_version=version)

    def remove_library(self) -> None:
        """Let imports fail for a missing shared library."""
        self._set(library_missing=True)

    def mismatch_binding(self, version: str) -> None:
        """Let imports fail for a compiled module of another version."""
        self._set(binding_version=version)

    def set_temperature(self, ambient_c: float) -> None:
        """Change the air around it; the chip follows with its time constant."""
        self._set(ambient_c=ambient_c)

    def heal(self) -> None:
        """End every fault: plugged in, the right driver, room temperature, the usual speed."""
        with self._changing() as orders:
            if not self._is_present(orders):
                _plug_in(orders)
            orders.update(
                faults=[],
                slowness=1.0,
                open_status=0,
                driver_version=orders["library_version"],
                library_missing=False,
                binding_version="",
                ambient_c=_ROOM_C,
            )

    @property
    def frames(self) -> int:
        """Frames run since `create`."""
        return int(self._counters()[0])

    @property
    def throttling_level(self) -> int:
        """-1, or 0 to 3: how far the clock was lowered at the last frame."""
        return int(self._counters()[1]) if self.frames else -1

    @property
    def temperature_c(self) -> float:
        """The chip's temperature at the last frame; meaningful once there was one."""
        return float(self._counters()[2])

    @property
    def resets(self) -> int:
        """How often the chip was reset."""
        return int(self._counters()[6])

    @property
    def is_in_use(self) -> bool:
        """Whether a process has it open for inference."""
        with (self.folder / "device.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _add_fault(self, kind: str, after_frames: int, **more: Any) -> None:
        with self._changing() as orders:
            at_frame = self.frames + after_frames
            fault = {"id": secrets.token_hex(6), "kind": kind, "at_frame": at_frame, **more}
            orders["faults"] = [*orders["faults"], fault]

    def _set(self, **values: Any) -> None:
        with self._changing() as orders:
            orders.update(values)

    def _is_present(self, orders: Mapping[str, Any]) -> bool:
        try:
            fired = (self.folder / "fired").read_text().split()
        except FileNotFoundError:
            fired = []
        dropped_off = any(f["kind"] == "vanish" and f["id"] in fired for f in orders["faults"])
        return orders["present"] and not dropped_off

    def _counters(self) -> tuple[Any, ...]:
        return _COUNTERS.unpack((self.folder / "counters").read_bytes())

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        path = self.folder / "device.json"
        with (self.folder / "commands.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            orders = json.loads(path.read_bytes()) if path.exists() else {}
            yield orders
            written = path.with_suffix(".new")
            written.write_text(json.dumps(orders, indent=1))
            written.replace(path)


def _plug_in(orders: dict[str, Any]) -> None:
    orders["present"] = True
    orders["attachment"] += 1
    orders["faults"] = [fault for fault in orders["faults"] if fault["kind"] != "vanish"]
