"""Checks of the Hailo device as the kernel sees it, each a function of what was read.

A wrong family is the trap here: both drivers can be installed and even loaded, and only the one
that knows the device's PCI number binds it (hailo-apps #111 and #158, hailo-rpi5-examples #193).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from edge_runtime.doctor.box import Box, Unread
from edge_runtime.doctor.families import FAMILIES, NODES, Family, Package
from edge_runtime.doctor.findings import Check, unreadable
from edge_runtime.doctor.hardware import Hardware, PciDevice, known

NO_DEVICE: Final = "no Hailo device was found"

DMESG: Final = "the driver says why: `sudo dmesg`, lines with hailo"
_OTHERS: Final = "`sudo prime-spark edge doctor` sees every process"
_SEATING: Final = (
    "switch the box off, reseat the ribbon at both ends, and see whether `lspci -nn -d 1e60:` lists"
    " it; an adapter that is no HAT+ also needs `dtparam=pciex1` in /boot/firmware/config.txt"
)
_GEN_3: Final = (
    "add `dtparam=pciex1_gen=3` to /boot/firmware/config.txt, then `sudo reboot`; Raspberry Pi does"
    " not certify the Pi 5 for it, so take it back if the device then drops off"
)
_OTHER_LINK: Final = "reseat the device; look whether the slot or a switch before it is slower"


def hardware_checks(
    box: Box, hardware: Hardware, seen: Sequence[str], is_wanted: bool, is_pi_5: bool
) -> Iterator[Check]:
    """Yield the checks.

    seen: ids of the devices that the binding finds; is_wanted: the settings ask for one; is_pi_5:
    the board is a Raspberry Pi 5, whose link is slow until told otherwise.
    """
    yield device_check(hardware, seen, is_wanted)
    yield from (link_check(device, is_pi_5) for device in known(hardware.devices) if device.speed)
    yield driver_check(hardware)
    if hardware.nodes or known(hardware.modules):
        may_open = {node: box.may_open(box.path(node)) for node in hardware.nodes}
        yield node_check(hardware, may_open)
    if hardware.nodes:
        yield users_check(hardware)
    yield packages_check(hardware)


def device_check(hardware: Hardware, seen: Sequence[str], is_wanted: bool) -> Check:
    """Say which device is there; that there is none is a problem only when one is wanted."""
    name = "hailo device"
    if isinstance(hardware.devices, Unread) and not hardware.devices.is_absent:
        return unreadable(name, hardware.devices)
    devices = known(hardware.devices)
    if not devices and (hardware.nodes or seen):
        places = " and ".join((*hardware.nodes, *seen))
        return Check(name, "ok", f"{places}; the bus could not be looked at")
    if not devices and is_wanted:
        return Check(name, "problem", NO_DEVICE, _SEATING)
    return Check(name, "ok", "; ".join(device.title for device in devices) or NO_DEVICE)


def link_check(device: PciDevice, is_pi_5: bool) -> Check:
    """Compare the link's speed with the device's; the width of a Raspberry Pi is always 1."""
    name = "hailo link"
    now, best = _gigatransfers(device.speed), _gigatransfers(device.max_speed)
    width = f", width {device.width} of {device.max_width}" if device.width else ""
    found = f"{device.speed} of {device.max_speed or '?'}{width}"
    if now is None or best is None or now >= best:
        return Check(name, "ok", found)
    return Check(name, "warning", found, _GEN_3 if is_pi_5 else _OTHER_LINK)


def driver_check(hardware: Hardware) -> Check:
    """Say which kernel module is loaded, and whether it is the one that the device needs."""
    name = "hailo driver"
    if isinstance(hardware.modules, Unread):
        return unreadable(name, hardware.modules)
    devices, family = known(hardware.devices), hardware.family
    loaded = " and ".join(hardware.modules)
    if not devices:
        return Check(name, "ok", loaded or "not loaded; it loads itself once a device is there")
    if family is None:
        return Check(name, "unknown", f"{loaded or 'none loaded'}; which one it needs is not known")
    if not loaded:
        return Check(
            name,
            "problem",
            f"{family.module} is not loaded",
            f"`sudo modprobe {family.module}`; if there is no such module: {install(family)}",
        )
    if family.module not in hardware.modules:
        return Check(
            name,
            "problem",
            f"{loaded} is loaded, but {devices[0].title} needs {family.module}: the families "
            "do not mix",
            install(family),
        )
    unbound = [device.address for device in devices if not device.driver]
    if unbound:
        found = f"{family.module} is loaded, but did not start {', '.join(unbound)}"
        return Check(name, "problem", found, DMESG)
    extra = " (the other does no harm)" if len(hardware.modules) > 1 else ""
    return Check(name, "ok", f"{loaded} is loaded{extra}")


def node_check(hardware: Hardware, may_open: Mapping[str, bool]) -> Check:
    """Say where programs find the device, and whether this user may open it."""
    name = "hailo node"
    if not hardware.nodes:
        found = f"neither {NODES[0]} nor {NODES[1]} exists"
        if not known(hardware.devices):
            return Check(name, "ok", found)
        return Check(name, "problem", found, DMESG)
    refused = [node for node in hardware.nodes if not may_open[node]]
    if not refused:
        return Check(name, "ok", " and ".join(hardware.nodes))
    subsystem = hardware.family.subsystem if hardware.family else FAMILIES[0].subsystem
    return Check(
        name,
        "problem",
        f"this user may not open {' and '.join(refused)}",
        f"`sudo udevadm control --reload-rules && sudo udevadm trigger -s {subsystem}` applies the "
        "vendor's rule (mode 0666); when your system narrows it to a group, join that group",
    )


def users_check(hardware: Hardware) -> Check:
    """Name the processes that have the device open: one at a time can run models on it."""
    name = "hailo users"
    others = [user for user in hardware.users if not user.is_ours]
    shown = ", ".join(f"{user.pid} {user.name}" for user in hardware.users)
    if others:
        pids = " ".join(str(user.pid) for user in others)
        return Check(
            name,
            "warning",
            f"open in {shown}",
            f"one process at a time can run models on it: stop the other (`sudo kill {pids}`), or "
            "leave it the device by the setting edge.accelerator.kind: none",
        )
    if hardware.users:
        return Check(name, "ok", f"open in {shown}")
    if hardware.hidden:
        found = f"none of this user's; {hardware.hidden} processes of others could not be looked at"
        return Check(name, "unknown", found, _OTHERS)
    return Check(name, "ok", "nobody has it open")


def packages_check(hardware: Hardware) -> Check:
    """Look for packages of both families, of the wrong one, or half configured."""
    name = "hailo packages"
    if isinstance(hardware.packages, Unread):
        return unreadable(name, hardware.packages)
    packages = [package for package in hardware.packages if package.family]
    shown = ", ".join(f"{package.name} {package.version}" for package in packages)
    broken = [package.name for package in hardware.packages if not package.is_whole]
    if broken:
        return Check(
            name,
            "problem",
            f"{', '.join(broken)} are not configured to the end",
            "`sudo dpkg --configure -a`; a driver that does not build for a new kernel says why in "
            "/var/lib/dkms/*/*/build/make.log",
        )
    wanted = hardware.family
    lines = {package.family.line for package in packages if package.family}
    if wanted is None and len(lines) > 1:
        cures = (
            f"for {family.chips} `sudo apt-get remove {_names_outside(family, packages)}`"
            for family in FAMILIES
        )
        return Check(name, "problem", f"packages of both families: {shown}", ", ".join(cures))
    wrong = _names_outside(wanted, packages) if wanted else ""
    if wanted and wrong:
        return Check(
            name,
            "problem",
            f"{wrong} not for {wanted.chips}: {shown}",
            f"`sudo apt-get remove {wrong}`, then {install(wanted)}",
        )
    return Check(name, "ok", shown or "none installed")


def install(family: Family) -> str:
    """Return the command that installs everything of a family; apt removes the other by itself."""
    return f"`sudo apt-get update && sudo apt-get install dkms {family.everything} && sudo reboot`"


def _names_outside(family: Family, packages: Sequence[Package]) -> str:
    return " ".join(package.name for package in packages if package.family is not family)


def _gigatransfers(text: str) -> float | None:
    found = re.match(r"(\d{1,4}(?:\.\d{1,4})?) ?GT/s", text)
    return float(found.group(1)) if found else None
