"""The four versions that have to be one: kernel driver, library, Python binding, firmware.

They come from four places and are updated apart, so a mismatch is the most frequent reason for an
accelerator that worked yesterday (status 76; frigate-hass-addons #215 and #241, viseron #1144 and
#1490). What is out of step decides the remedy: an update that waits for a reboot, a library that
lags, a driver that was not rebuilt, or a container whose image is older than its host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from edge_runtime.doctor.binding import SYSTEM_PYTHON, Binding
from edge_runtime.doctor.box import Box, Done, Unread
from edge_runtime.doctor.families import (
    FAMILIES,
    HAILO_8,
    HAILO_10,
    Family,
    family_of,
    is_newer,
    version_in,
)
from edge_runtime.doctor.findings import Check
from edge_runtime.doctor.hailo import DMESG, install
from edge_runtime.doctor.hardware import Hardware, known
from edge_runtime.hailo_statuses import STATUSES, explain, status_in

MISMATCH: Final = 76
HUNG: Final = STATUSES[87].remedy
_SAYS: Final = re.compile(
    r"Driver version \((\d+\.\d+\.\d+)\) is different from library version \((\d+\.\d+\.\d+)\)"
)
_CONTAINER_MARKS: Final = ("/.dockerenv", "/run/.containerenv")


@dataclass(frozen=True, slots=True)
class Tool:
    """What `hailortcli` said. status: of HailoRT, when it refused; trouble: why, in its words."""

    version: str = ""
    firmware: str = ""
    architecture: str = ""
    status: int | None = None
    trouble: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True)
class Versions:
    """What was found; empty where it is not known. on_disk: the driver that the next boot loads."""

    driver: str = ""
    on_disk: str = ""
    library: str = ""
    binding: str = ""
    firmware: str = ""

    def __str__(self) -> str:
        named = (
            ("driver", self.driver),
            ("library", self.library),
            ("binding", self.binding),
            ("firmware", self.firmware),
        )
        return ", ".join(f"{name} {version or '?'}" for name, version in named)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a remedy depends on.

    family: the device's, None when it is not known; interpreter: whose binding it is;
    has_vendor_packages: those of 5.x that are named like Raspberry Pi OS's of 4.x;
    has_firmware_package: bookworm's, later the driver's package brings the firmware.
    """

    family: Family | None
    interpreter: str = SYSTEM_PYTHON
    is_container: bool = False
    is_bookworm: bool = False
    has_vendor_packages: bool = False
    has_firmware_package: bool = False


def read_tool(box: Box, is_there: bool) -> Tool:
    """Ask `hailortcli` for its version and, when there is a device, who that is."""
    told = box.run(["hailortcli", "--version"])
    if isinstance(told, Unread):
        return Tool(trouble=told.why)
    tool = Tool(version=version_in(told.out or told.err))
    if not is_there:
        return tool
    done = box.run(["hailortcli", "fw-control", "identify"])
    return replace(tool, trouble=done.why) if isinstance(done, Unread) else _identity(tool, done)


def read_versions(box: Box, hardware: Hardware, tool: Tool, binding: Binding) -> Versions:
    """Bring the four together. What the kernel does not show is taken from the library's log."""
    modules, family = known(hardware.modules), hardware.family
    module = family.module if family and family.module in modules else "".join(modules[:1])
    loaded = box.text(f"/sys/module/{module}/version") if module else ""
    file = box.run(["modinfo", "-F", "version", module]) if module else Unread("not loaded")
    said = _SAYS.search(f"{tool.log}\n{binding.log}")
    driver, library = said.groups() if said else ("", "")
    names = {family.library for family in FAMILIES}
    packages = [p.version for p in known(hardware.packages) if p.name in names]
    return Versions(
        driver=("" if isinstance(loaded, Unread) else version_in(loaded)) or driver,
        on_disk="" if isinstance(file, Unread) else version_in(file.out),
        library=tool.version or library or version_in(" ".join(packages[:1])),
        binding=version_in(binding.version),
        firmware=tool.firmware or binding.firmware,
    )


def read_surroundings(box: Box, hardware: Hardware, binding: Binding) -> Surroundings:
    """Look at what the remedies depend on."""
    release = box.text("/etc/os-release")
    packages = {package.name: package for package in known(hardware.packages)}
    vendors = packages.get(HAILO_8.library)
    return Surroundings(
        hardware.family,
        binding.interpreter,
        any(box.exists(mark) for mark in _CONTAINER_MARKS),
        not isinstance(release, Unread) and "VERSION_CODENAME=bookworm" in release,
        vendors is not None and vendors.family is HAILO_10,
        "hailofw" in packages,
    )


def versions_check(versions: Versions, around: Surroundings) -> Check:
    """Compare them; the remedy has a step for each that is out of step, in order."""
    name = "hailo versions"
    steps = list(_steps(versions, around))
    if steps:
        return Check(name, "problem", str(versions), "; then ".join(steps))
    numbers = (versions.driver, versions.library, versions.binding, versions.firmware)
    if sum(map(bool, numbers)) < 2:
        return Check(name, "unknown", f"too little could be read to compare: {versions}")
    return Check(name, "ok", str(versions))


def answer_check(tool: Tool, binding: Binding, versions: Check) -> Check:
    """Say whether the device answers; a refusal comes with the meaning of its number."""
    name = "hailo answer"
    refusals = [("hailortcli", tool.status), (binding.interpreter, binding.status)]
    for who, status in refusals:
        if status is None:
            continue
        known_as = explain(status)
        is_explained = status == MISMATCH and versions.state == "problem"
        remedy = versions.remedy if is_explained else known_as.remedy
        found = f"{who} is refused: {known_as.title}. {known_as.meaning}"
        return Check(name, "problem", found, remedy)
    if binding.trouble:
        remedy = HUNG if binding.is_cut_off else DMESG
        return Check(name, "problem", f"{binding.interpreter}: {binding.trouble}", remedy)
    if architecture := tool.architecture or binding.architecture:
        return Check(name, "ok", f"{architecture}; a package needs a HEF for it")
    if binding.devices is not None:
        return Check(name, "problem", "hailo_platform finds no device", DMESG)
    if tool.trouble:
        return Check(name, "unknown", f"hailortcli: {tool.trouble}")
    return Check(name, "unknown", "nothing here can ask it")


def _identity(tool: Tool, done: Done) -> Tool:
    text = f"{done.out}\n{done.err}"
    if done.code == 0:
        chip = re.search(r"Device Architecture: *(\w+)", text)
        firmware = re.search(r"Firmware Version: *(\S+)", text)
        return replace(
            tool,
            firmware=version_in(firmware.group(1)) if firmware else "",
            architecture=chip.group(1) if chip else "",
        )
    # The exit code is the status (viseron #1490), unless it ended before the library was asked.
    status = done.code if done.code in STATUSES else status_in(text)
    return replace(tool, status=status, trouble=done.trouble, log=text)


def _steps(versions: Versions, around: Surroundings) -> Iterator[str]:
    library = versions.library or versions.binding
    mixed = _mixed(versions, library, around.family)
    if mixed:
        yield mixed
        return
    names = _names(around, family_of(versions.driver or library) or HAILO_8)
    is_driver_apart = bool(versions.driver and library and versions.driver != library)
    if is_driver_apart:
        yield _driver_step(versions, library, around, names)
    if versions.binding and versions.library and versions.binding != versions.library:
        yield _binding_step(versions.library, around.interpreter, names)
    # While the driver is apart its firmware is too: the right driver brings its own.
    wanted = versions.driver or library
    if versions.firmware and wanted and versions.firmware != wanted and not is_driver_apart:
        package = "hailofw" if around.has_firmware_package else names.driver
        yield (
            f"the driver loads the firmware when it starts: "
            f"`sudo apt-get install --reinstall {package} && sudo reboot`"
        )


def _names(around: Surroundings, of_versions: Family) -> Family:
    """Return the family whose packages are to be named."""
    family = around.family or of_versions
    if family is HAILO_10 and around.has_vendor_packages:
        return replace(
            family, library=HAILO_8.library, binding=HAILO_8.binding, driver=HAILO_8.driver
        )
    return family


def _mixed(versions: Versions, library: str, family: Family | None) -> str:
    """Say which parts are of the wrong family, or of both, and the cure; else nothing."""
    parts = (("driver", versions.driver), ("library", library), ("binding", versions.binding))
    there = [
        (f"{name} {version}", found) for name, version in parts if (found := family_of(version))
    ]
    if family is not None:
        wrong = " and ".join(text for text, found in there if found is not family)
        return wrong and f"{family.chips} need {family.line}.x, not {wrong}: {install(family)}"
    if len({found.line for _, found in there}) < 2:
        return ""
    cures = ", ".join(f"for {found.chips} {install(found)}" for found in FAMILIES)
    return f"{' and '.join(text for text, _ in there)} are of two families: {cures}"


def _driver_step(versions: Versions, library: str, around: Surroundings, names: Family) -> str:
    driver = versions.driver
    exact = f"'{names.library}={driver}*' '{names.binding}={driver}*'"
    if around.is_container:
        return f"the host's driver is {driver}: install HailoRT {driver} in the container's image"
    if versions.on_disk == library:
        return f"driver {library} is installed and not loaded yet: `sudo reboot`"
    if is_newer(driver, library):
        return f"the library lags: `sudo apt-get update && sudo apt-get install {exact}`"
    if around.is_bookworm and names.line == HAILO_8.line:
        return (
            "the driver comes with bookworm's kernel: `sudo apt-get update && sudo apt-get "
            "full-upgrade && sudo reboot`; when the kernel has none as new, take the library back: "
            f"`sudo apt-get install --allow-downgrades {exact}`"
        )
    return (
        f"the driver lags: `sudo apt-get install --reinstall dkms {names.driver} && sudo reboot`; "
        f"`sudo dkms status` then shows {library} for this kernel"
    )


def _binding_step(library: str, interpreter: str, names: Family) -> str:
    packaged = f"`sudo apt-get install '{names.binding}={library}*'`"
    if interpreter == SYSTEM_PYTHON:
        return f"the binding has to be the library's: {packaged}"
    return (
        f"the binding has to be the library's: install the vendor's wheel hailort {library} in "
        f"{interpreter}, or set edge.accelerator.python to {SYSTEM_PYTHON} and {packaged}"
    )
