"""What the kernel and dpkg know of Hailo devices: bus, modules, nodes, who has them open, packages.

`read_hardware` is all the reading that the checks in `hailo` need.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from edge_runtime.doctor.box import Box, Unread
from edge_runtime.doctor.families import (
    DEVICES,
    FAMILIES,
    NODES,
    VENDOR,
    Family,
    Package,
    packages_in,
)

_T = TypeVar("_T")
_PCI: Final = "/sys/bus/pci/devices"


@dataclass(frozen=True, slots=True)
class PciDevice:
    """A Hailo device on the bus.

    driver: of the kernel, empty when none has bound it; speeds and widths as sysfs writes them,
    empty when it does not.
    """

    address: str
    number: int
    driver: str = ""
    speed: str = ""
    max_speed: str = ""
    width: str = ""
    max_width: str = ""

    @property
    def family(self) -> Family | None:
        return DEVICES[self.number][1] if self.number in DEVICES else None

    @property
    def title(self) -> str:
        name = DEVICES[self.number][0] if self.number in DEVICES else f"device {self.number:#06x}"
        return f"{name} at {self.address} ({VENDOR:04x}:{self.number:04x})"


@dataclass(frozen=True, slots=True)
class User:
    """A process that has the device open. is_ours: it belongs to the edge runtime."""

    pid: int
    name: str
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Hardware:
    """What was read. modules: the loaded ones of either family; hidden: processes whose open files
    this user may not see.
    """

    devices: Sequence[PciDevice] | Unread
    modules: Sequence[str] | Unread
    nodes: Sequence[str]
    packages: Sequence[Package] | Unread
    users: Sequence[User] = ()
    hidden: int = 0

    @property
    def is_there(self) -> bool:
        """Whether a device is on the bus or has a node."""
        return bool(self.nodes or known(self.devices))

    @property
    def is_meant(self) -> bool:
        """Whether anything on this machine speaks of a Hailo device."""
        packages = [package for package in known(self.packages) if package.family]
        return self.is_there or bool(known(self.modules) or packages)

    @property
    def family(self) -> Family | None:
        """Return the device's family: by the bus, else by the driver, where that is clear."""
        found = [device.family for device in known(self.devices) if device.family]
        found = found or [f for f in FAMILIES if f.module in known(self.modules)]
        return found[0] if len({family.line for family in found}) == 1 else None


def known(read: Sequence[_T] | Unread) -> Sequence[_T]:
    """Return what was read, nothing when it could not be."""
    return () if isinstance(read, Unread) else read


def read_hardware(box: Box) -> Hardware:
    """Look at the bus, the kernel's modules, the nodes, who has them open, and the packages."""
    nodes = [node for node in NODES if box.exists(node)]
    users, hidden = _read_users(box, nodes)
    return Hardware(
        _read_devices(box), _read_modules(box), nodes, _read_packages(box), users, hidden
    )


def _read_devices(box: Box) -> list[PciDevice] | Unread:
    addresses = box.names(_PCI)
    if isinstance(addresses, Unread):
        return addresses
    found: list[PciDevice] = []
    for address in addresses:
        folder = f"{_PCI}/{address}"
        if _hexadecimal(box.text(f"{folder}/vendor")) != VENDOR:
            continue
        number = _hexadecimal(box.text(f"{folder}/device"))
        driver = box.link(f"{folder}/driver")
        found.append(
            PciDevice(
                address,
                number if number is not None else 0,
                "" if isinstance(driver, Unread) else driver.rpartition("/")[2],
                _word(box.text(f"{folder}/current_link_speed")),
                _word(box.text(f"{folder}/max_link_speed")),
                _word(box.text(f"{folder}/current_link_width")),
                _word(box.text(f"{folder}/max_link_width")),
            )
        )
    return found


def _read_modules(box: Box) -> list[str] | Unread:
    listed = box.text("/proc/modules")
    # Without loadable modules there is no such file; what is built in shows in /sys/module.
    names: Sequence[str] | Unread = (
        box.names("/sys/module") if isinstance(listed, Unread) else _first_words(listed)
    )
    if isinstance(names, Unread):
        return names
    return [family.module for family in FAMILIES if family.module in names]


def _read_packages(box: Box) -> list[Package] | Unread:
    query = ("dpkg-query", "-W", "-f", "${db:Status-Abbrev}|${Package}|${Version}\n", "*hailo*")
    done = box.run(query)
    return done if isinstance(done, Unread) else packages_in(done.out)


def _read_users(box: Box, nodes: Sequence[str]) -> tuple[list[User], int]:
    """Find who has a node open, by the links in /proc/PID/fd as `fuser` does."""
    users: list[User] = []
    hidden = 0
    for pid in known(box.names("/proc")) if nodes else ():
        if not pid.isdecimal():
            continue
        files = box.names(f"/proc/{pid}/fd")
        if isinstance(files, Unread):
            hidden += not files.is_absent
            continue
        if any(box.link(f"/proc/{pid}/fd/{file}") in nodes for file in files):
            command = _word(box.text(f"/proc/{pid}/cmdline"))
            is_ours = "edge_runtime" in command or "prime-spark" in command
            users.append(User(int(pid), _word(box.text(f"/proc/{pid}/comm")) or "?", is_ours))
    return users, hidden


def _first_words(text: str) -> list[str]:
    return [line.partition(" ")[0] for line in text.splitlines()]


def _word(text: str | Unread) -> str:
    return "" if isinstance(text, Unread) else text


def _hexadecimal(text: str | Unread) -> int | None:
    found = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{1,8})", _word(text))
    return int(found.group(1), 16) if found else None
