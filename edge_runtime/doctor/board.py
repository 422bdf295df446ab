"""The computer under the accelerator: system, board, heat, power, memory, clock, storage.

Limits with a source: a Raspberry Pi lowers its clock from 80 degrees on and more from 85
(raspberrypi.com/documentation/computers/raspberry-pi.html); the bits of `get_throttled` are in the
same place, under `vcgencmd`. The others are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge_runtime.doctor.box import Box, Done, Unread
from edge_runtime.doctor.findings import Check, unreadable

WARM_C: Final = 80.0
HOT_C: Final = 85.0
FIRST_YEAR: Final = 2024
LOW_MEMORY: Final = 256 << 20
NO_MEMORY: Final = 64 << 20
LOW_SPACE: Final = 1 << 30
NO_SPACE: Final = 100 << 20

_THROTTLED: Final = "/sys/devices/platform/soc/soc:firmware/get_throttled"
_BITS: Final = ("under-voltage", "clock capped", "throttled", "at the soft temperature limit")
_PAST: Final = 16
_SUPPLY: Final = "use the supply made for the board (Pi 5: 5 V, 5 A) and its cable"
_COOLING: Final = "fit a cooler, or let air to it; it runs slower until then"
_WRITABLE: Final = (
    "`sudo mount -o remount,rw {mount}`; storage that turned read-only by itself is failing (`sudo "
    "dmesg`, lines with mmc, nvme or EXT4): copy what you need and replace it"
)


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system."""

    point: str
    is_read_only: bool


def board_checks(box: Box, home: Path, python: str) -> Iterator[Check]:
    """Yield the checks. python: the version of the interpreter that runs the product."""
    yield system_check(box.text("/etc/os-release"), python)
    yield kernel_check(box.text("/proc/sys/kernel/osrelease"), box.run(["getconf", "PAGESIZE"]))
    model = read_model(box)
    yield Check("board", "ok", model or "not a Raspberry Pi: there is no device tree")
    yield temperature_check(_temperatures(box))
    flags = _throttled(box)
    if model.startswith("Raspberry Pi") or not isinstance(flags, Unread):
        yield power_check(flags)
    yield memory_check(box.text("/proc/meminfo"))
    yield clock_check(box.now(), box.run(["timedatectl", "show", "-p", "NTPSynchronized"]))
    yield storage_check(home, _space(box, home), box.text("/proc/mounts"))


def read_model(box: Box) -> str:
    """Return the board's name, nothing where the kernel has none."""
    model = box.text("/proc/device-tree/model")
    return "" if isinstance(model, Unread) else model


def is_raspberry_pi_5(model: str) -> bool:
    """Whether it is a Pi 5 or a Compute Module 5, by the name in the device tree."""
    return model.startswith(("Raspberry Pi 5", "Raspberry Pi Compute Module 5"))


def system_check(release: str | Unread, python: str) -> Check:
    """Name the operating system and our Python."""
    name = "system"
    if isinstance(release, Unread):
        return unreadable(name, release)
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', release, re.MULTILINE)
    return Check(name, "ok", f"{found.group(1) if found else '?'}, Python {python}")


def kernel_check(kernel: str | Unread, page_size: Done | Unread) -> Check:
    """Name the kernel and the size of its pages, which older drivers of Hailo stumble over."""
    name = "kernel"
    if isinstance(kernel, Unread):
        return unreadable(name, kernel)
    text = "" if isinstance(page_size, Unread) else page_size.out.strip()
    pages = f"pages of {int(text) // 1024} KiB" if re.fullmatch(r"\d{4,7}", text) else "pages of ?"
    note = " (see status 8 of HailoRT)" if text == "16384" else ""
    return Check(name, "ok", f"{kernel}, {pages}{note}")


def temperature_check(temperatures: list[float] | Unread) -> Check:
    """Compare the warmest sensor with the limits at which a Raspberry Pi slows down."""
    name = "temperature"
    if isinstance(temperatures, Unread):
        return unreadable(name, temperatures)
    if not temperatures:
        return unreadable(name, Unread("there is no sensor"))
    warmest = max(temperatures)
    found = f"{warmest:.0f} degrees"
    if warmest >= HOT_C:
        return Check(name, "problem", found, _COOLING)
    return (
        Check(name, "warning", found, _COOLING) if warmest >= WARM_C else Check(name, "ok", found)
    )


def power_check(flags: int | Unread) -> Check:
    """Decode what the firmware says of voltage and clock, now and since the start."""
    name = "power"
    if isinstance(flags, Unread):
        return unreadable(name, flags)
    now = [text for bit, text in enumerate(_BITS) if flags & 1 << bit]
    before = [text for bit, text in enumerate(_BITS) if flags & 1 << bit + _PAST]
    parts = [
        f"now {', '.join(now)}" if now else "",
        f"before {', '.join(before)}" if before else "",
    ]
    found = "; ".join(part for part in parts if part)
    if not found:
        return Check(name, "ok", "enough, and never throttled since the start")
    is_supply = _BITS[0] in (*now, *before)
    remedies = [_SUPPLY] * is_supply + [_COOLING] * any(b != _BITS[0] for b in (*now, *before))
    return Check(name, "problem" if _BITS[0] in now else "warning", found, "; ".join(remedies))


def memory_check(meminfo: str | Unread) -> Check:
    """Say how much memory programs can still have."""
    name = "memory"
    if isinstance(meminfo, Unread):
        return unreadable(name, meminfo)
    found = re.search(r"^MemAvailable: +(\d{1,15}) kB$", meminfo, re.MULTILINE)
    if found is None:
        return unreadable(name, Unread("/proc/meminfo does not say"))
    available = int(found.group(1)) << 10
    text = f"{available >> 20} MiB available"
    remedy = "unload models: `prime-spark edge models remove`; or end other programs"
    if available < NO_MEMORY:
        return Check(name, "problem", text, remedy)
    return (
        Check(name, "warning", text, remedy) if available < LOW_MEMORY else Check(name, "ok", text)
    )


def clock_check(now: float, synchronised: Done | Unread) -> Check:
    """See whether the clock can be right, and whether anybody keeps it so."""
    name = "clock"
    date = datetime.fromtimestamp(now, UTC)
    text = f"{date:%Y-%m-%d %H:%M} UTC"
    set_it = "`sudo timedatectl set-ntp true`, or `sudo timedatectl set-time 'YYYY-MM-DD HH:MM'`"
    if date.year < FIRST_YEAR:
        wrong = f"{text}: wrong, so no token holds and no update is taken"
        return Check(name, "problem", wrong, set_it)
    said = "" if isinstance(synchronised, Unread) else synchronised.out.strip()
    match said.rpartition("=")[2]:
        case "yes":
            return Check(name, "ok", f"{text}, synchronised")
        case "no":
            return Check(name, "warning", f"{text}, not synchronised", set_it)
        case _:
            return Check(name, "ok", f"{text}; whether it is synchronised is not known")


def storage_check(home: Path, space: tuple[int, int] | Unread, mounts: str | Unread) -> Check:
    """See whether the home's file system takes writes, and for how long."""
    name = "storage"
    if isinstance(space, Unread):
        return unreadable(name, space)
    free, total = space
    mount = None if isinstance(mounts, Unread) else mount_of(home, mounts)
    text = f"{free >> 20} of {total >> 20} MiB free for {home}"
    if mount is not None and mount.is_read_only:
        found = f"{mount.point} is read-only: {text}"
        return Check(name, "problem", found, _WRITABLE.format(mount=mount.point))
    remedy = "remove models that are not served (`prime-spark edge models list`), or old logs"
    if free < NO_SPACE:
        return Check(name, "problem", text, remedy)
    return Check(name, "warning", text, remedy) if free < LOW_SPACE else Check(name, "ok", text)


def mount_of(path: Path, mounts: str) -> Mount | None:
    """Find the file system of a path in /proc/mounts: the longest point, the last of the same."""
    best: Mount | None = None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 4:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), fields[1])
        if path.is_relative_to(point) and (best is None or len(point) >= len(best.point)):
            best = Mount(point, "ro" in fields[3].split(","))
    return best


def _temperatures(box: Box) -> list[float] | Unread:
    folder = "/sys/class/thermal"
    zones = box.names(folder)
    if isinstance(zones, Unread):
        return zones
    texts = [box.text(f"{folder}/{zone}/temp") for zone in zones if zone.startswith("thermal_zone")]
    return [
        int(text) / 1000
        for text in texts
        if not isinstance(text, Unread) and re.fullmatch(r"-?\d{1,6}", text)
    ]


def _throttled(box: Box) -> int | Unread:
    """Ask the firmware; vcgencmd says `throttled=0x50000`, the kernel `50000`."""
    done = box.run(["vcgencmd", "get_throttled"])
    said = done.out.strip() if isinstance(done, Done) and done.code == 0 else box.text(_THROTTLED)
    if isinstance(said, Unread):
        return Unread(f"no vcgencmd that works, and {said.why} for {_THROTTLED}")
    found = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", said)
    return int(found.group(1), 16) if found else Unread(f"'{said[:40]}' is no number")


def _space(box: Box, home: Path) -> tuple[int, int] | Unread:
    """Ask for the file system that the home is in, or will be in."""
    for folder in (home, *home.parents):
        try:
            return box.space(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            return Unread((error.strerror or str(error)).lower())
    return Unread(f"{home} has no parent that exists")
