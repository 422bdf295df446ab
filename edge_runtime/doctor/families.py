"""The two families of Hailo devices, whose drivers, libraries and packages do not mix.

PCI numbers are those of the vendor's drivers (hailort-drivers, `common/pcie_common.h`): `hailo_pci`
4.x binds 0x2864 alone, `hailo1x_pci` 5.x the three others. Package names are Raspberry Pi OS's.
The chips 8 and 8L cannot be told apart on the bus; the firmware says which one it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

VENDOR: Final = 0x1E60
NODES: Final = ("/dev/hailo0", "/dev/h1x-0")
"""Where devices appear: drivers of 5.1 call a Hailo-10H hailo0 too, those of 5.3 h1x-0."""


@dataclass(frozen=True, slots=True)
class Family:
    """chips: for people; line: major version of its HailoRT; the rest are names of packages, and
    of the kernel's module and class of devices. everything: the package that brings all others.
    """

    chips: str
    line: int
    module: str
    subsystem: str
    everything: str
    library: str
    binding: str
    driver: str


HAILO_8: Final = Family(
    "Hailo-8 and 8L",
    4,
    "hailo_pci",
    "hailo_chardev",
    "hailo-all",
    "hailort",
    "python3-hailort",
    "hailort-pcie-driver",
)
HAILO_10: Final = Family(
    "Hailo-10H and 15",
    5,
    "hailo1x_pci",
    "hailo1x",
    "hailo-h10-all",
    "h10-hailort",
    "python3-h10-hailort",
    "h10-hailort-pcie-driver",
)
FAMILIES: Final = (HAILO_8, HAILO_10)

DEVICES: Final[Mapping[int, tuple[str, Family]]] = {
    0x2864: ("Hailo-8 or 8L", HAILO_8),
    0x45C4: ("Hailo-10H", HAILO_10),
    0x43A2: ("Hailo-15L", HAILO_10),
    0x26A2: ("device 0x26a2", HAILO_10),
}


@dataclass(frozen=True, slots=True)
class Package:
    """An installed Debian package. is_whole: dpkg has finished configuring it."""

    name: str
    version: str
    is_whole: bool

    @property
    def family(self) -> Family | None:
        """Return whose it is; None for what both use.

        The vendor's own packages of 5.x have the names that Raspberry Pi OS gives to 4.x, while
        `hailo-all` has the number of a release of the OS: for that one the name decides.
        """
        for family in FAMILIES:
            if self.name == family.everything:
                return family
        if "h10" in self.name:
            return HAILO_10
        if self.name in (HAILO_8.library, HAILO_8.binding, HAILO_8.driver):
            return family_of(self.version)
        return None


def packages_in(listing: str) -> list[Package]:
    """Read `status|name|version` lines of dpkg-query; removed packages are left out."""
    found: list[Package] = []
    for line in listing.splitlines():
        status, _, rest = line.partition("|")
        name, _, version = rest.partition("|")
        # The second letter is what is there: n(ot), c(onfiguration), i(nstalled), or a half of it.
        if len(status) >= 2 and status[1] not in "nc" and version:
            found.append(Package(name, version.strip(), status[1] == "i"))
    return found


def version_in(text: str) -> str:
    """Return the first version of three numbers in a text, or nothing."""
    found = re.search(r"\b\d{1,4}\.\d{1,4}\.\d{1,4}\b", text)
    return found.group() if found else ""


def major(version: str) -> int:
    """Return the first number of a version, 0 where there is none."""
    found = re.match(r"(?:\d+:)?(\d{1,4})\b", version)
    return int(found.group(1)) if found else 0


def family_of(version: str) -> Family | None:
    """Return the family that a version of driver, library or binding is of."""
    if not version:
        return None
    return HAILO_10 if major(version) >= HAILO_10.line else HAILO_8


def is_newer(first: str, second: str) -> bool:
    """Whether a version of three numbers is above another."""
    return _numbers(first) > _numbers(second)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d{1,9}", version)]
