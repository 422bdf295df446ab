"""What a status number of HailoRT means, and what to do about it.

Numbers and names are those of `hailort.h` of HailoRT 4.23, and of 5.2 from 94 on. Meanings and
remedies come from users' reports (docs/how-to/check-an-edge-box.md shows the table). The driver's
mismatch stands first because an update of the system brings it to boxes that ran for months.

A number reaches us in three ways: as `error: 76 (HAILO_...)` in the text of a Python exception, as
`HAILO_...(76)` in a log line, and as the exit code of `hailortcli`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class HailoStatus:
    """One status. meaning, remedy: a sentence each; is_of_5: it does not exist in HailoRT 4.x."""

    number: int
    name: str
    meaning: str
    remedy: str
    is_of_5: bool = False

    @property
    def title(self) -> str:
        """Return number and name, as people search for them."""
        return f"status {self.number} {self.name}"


_OPTION: Final = "options hailo_pci force_desc_page_size=4096"
_LOG: Final = "look what the driver says: `sudo dmesg`, lines with hailo"
_RESTART: Final = "restart the runtime: `sudo systemctl restart prime-spark-edge`"

_ROWS: Final = (
    HailoStatus(
        76,
        "HAILO_INVALID_DRIVER_VERSION",
        "The loaded kernel driver and the library are of different versions; every call is refused "
        "until they are the same to the last digit.",
        "Bring both to one version and load it: `sudo apt-get update && sudo apt-get full-upgrade "
        "&& sudo reboot`; in a container, install the library of the host's driver "
        "(`cat /sys/module/hailo_pci/version`) in the image.",
    ),
    HailoStatus(
        2,
        "HAILO_INVALID_ARGUMENT",
        "The program gave the library a value that it does not take.",
        "It is an error in a program, not in the box: report it with the log of the runtime.",
    ),
    HailoStatus(
        4,
        "HAILO_TIMEOUT",
        "The device did not finish a job in time, and its pipeline is shut down.",
        "The runtime rebuilds the device; when it comes back again and again, cool the chip, then "
        f"{_RESTART}, then switch the box off and on.",
    ),
    HailoStatus(
        6,
        "HAILO_INVALID_OPERATION",
        "The call does not fit the state of the device or the size of a buffer.",
        "It is an error in a program, or a model package whose tensors are not those of its HEF: "
        "install the package again.",
    ),
    HailoStatus(
        7,
        "HAILO_NOT_IMPLEMENTED",
        "This device or this version of the library lacks the call; a Hailo-10H refuses the older "
        "streaming API so.",
        "Use programs that run models by InferModel; the runtime does.",
    ),
    HailoStatus(
        8,
        "HAILO_INTERNAL_FAILURE",
        "The library failed inside; with 'max_desc_page_size' in its log the driver asks for pages "
        "of 16 KiB where the device takes 4 KiB.",
        "For 'max_desc_page_size': "
        f"`sudo sh -c 'echo \"{_OPTION}\" > /etc/modprobe.d/hailo_pci.conf' && sudo reboot` (the "
        f"module is hailo1x_pci on a Hailo-10H); else {_LOG}.",
    ),
    HailoStatus(
        15,
        "HAILO_UNSUPPORTED_CONTROL_PROTOCOL_VERSION",
        "The firmware speaks another protocol than the library expects.",
        "Bring firmware, driver and library to one version: `sudo apt-get update && sudo apt-get "
        "full-upgrade && sudo reboot`.",
    ),
    HailoStatus(
        16,
        "HAILO_UNSUPPORTED_FW_VERSION",
        "The firmware is of another version than the library, or too old for this call.",
        "Bring firmware, driver and library to one version: `sudo apt-get update && sudo apt-get "
        "full-upgrade && sudo reboot`.",
    ),
    HailoStatus(
        18,
        "HAILO_FW_CONTROL_FAILURE",
        "The firmware refused a command; boards for the Pi have no power sensor and say so this "
        "way.",
        f"Harmless for power measurements; else {_RESTART}.",
    ),
    HailoStatus(
        25,
        "HAILO_INVALID_FRAME",
        "The device took an input frame for damaged; the pipeline goes on.",
        "It is an error in a program, or a model package whose tensors are not those of its HEF: "
        "install the package again.",
    ),
    HailoStatus(
        26,
        "HAILO_INVALID_HEF",
        "The model file is not a HEF that this library can read.",
        "Install the model package again, with a HEF from a compiler of the library's version.",
    ),
    HailoStatus(
        36,
        "HAILO_DRIVER_OPERATION_FAILED",
        "The kernel driver refused a request; a device that dropped off the bus shows so.",
        f"See whether `lspci -nn -d 1e60:` still lists the device, {_LOG}; reseat the ribbon and "
        "check the power supply when it is gone.",
    ),
    HailoStatus(
        48,
        "HAILO_UNSUPPORTED_OPCODE",
        "The firmware does not know this command.",
        "Bring firmware, driver and library to one version: `sudo apt-get update && sudo apt-get "
        "full-upgrade && sudo reboot`.",
    ),
    HailoStatus(
        61,
        "HAILO_NOT_FOUND",
        "A name is asked for that the model does not have.",
        "It is an error in a program, or a model package whose tensors are not those of its HEF: "
        "install the package again.",
    ),
    HailoStatus(
        62,
        "HAILO_COMMUNICATION_CLOSED",
        "The connection to the device is gone: it dropped off the bus, was reset, or its firmware "
        "died.",
        f"The runtime rebuilds the device; when it comes back, {_LOG}, and check power supply, "
        "ribbon and cooling.",
    ),
    HailoStatus(
        63,
        "HAILO_STREAM_ABORT",
        "The job was given up because its pipeline was shut down, by an earlier error or on "
        "purpose.",
        "Look for the first error before it: that one says why.",
    ),
    HailoStatus(
        64,
        "HAILO_DRIVER_NOT_INSTALLED",
        "No kernel driver for this device is loaded.",
        "Install it: `sudo apt-get install dkms hailo-all && sudo reboot` (a Hailo-10H: "
        "`sudo apt-get install dkms hailo-h10-all && sudo reboot`).",
    ),
    HailoStatus(
        69,
        "HAILO_NETWORK_GROUP_NOT_ACTIVATED",
        "A model is run without a scheduler and without being activated; the Python of 4.x has "
        "no scheduler unless told otherwise.",
        "Set ROUND_ROBIN in the parameters of the device; the runtime does, so this comes from "
        "another program.",
    ),
    HailoStatus(
        73,
        "HAILO_DEVICE_IN_USE",
        "Another process has the device.",
        "`prime-spark edge doctor` names the process: stop it, or leave the device to it by "
        "`prime-spark --set edge.accelerator.kind=none edge run`.",
    ),
    HailoStatus(
        74,
        "HAILO_OUT_OF_PHYSICAL_DEVICES",
        "No device is free: there is none on the bus, or another process has it.",
        "`prime-spark edge doctor` names the process; when there is none, see whether "
        "`lspci -nn -d 1e60:` lists the device.",
    ),
    HailoStatus(
        77,
        "HAILO_RPC_FAILED",
        "The vendor's service for several processes, or a Hailo-10H's own system, does not answer.",
        f"{_RESTART[0].upper()}{_RESTART[1:]}, then the service if one is used "
        "(`sudo systemctl restart hailort.service`), then switch the box off and on.",
    ),
    HailoStatus(
        78,
        "HAILO_INVALID_SERVICE_VERSION",
        "The vendor's service for several processes is of another version than the library.",
        "Restart it after the update: `sudo systemctl restart hailort.service`.",
    ),
    HailoStatus(
        81,
        "HAILO_OUT_OF_HOST_CMA_MEMORY",
        "The kernel has no contiguous memory left for buffers of the device.",
        "Unload models (`prime-spark edge models remove`), or give the kernel more: add cma=256M "
        "to the line in /boot/firmware/cmdline.txt and `sudo reboot`.",
    ),
    HailoStatus(
        82,
        "HAILO_QUEUE_IS_FULL",
        "More jobs were started than the device takes at once; nothing is broken.",
        "It is an error in a program, not in the box: report it with the log of the runtime.",
    ),
    HailoStatus(
        85,
        "HAILO_DRIVER_INVALID_RESPONSE",
        "The kernel driver answered what the library does not understand.",
        "Bring both to one version and load it: `sudo apt-get update && sudo apt-get full-upgrade "
        "&& sudo reboot`.",
    ),
    HailoStatus(
        86,
        "HAILO_DRIVER_INVALID_IOCTL",
        "The kernel driver does not know a request of the library: versions or families are mixed.",
        "Compare the versions with `prime-spark edge doctor`, and bring them to one of the "
        "device's family: `sudo apt-get install hailo-all && sudo reboot` (a Hailo-10H: "
        "hailo-h10-all).",
    ),
    HailoStatus(
        87,
        "HAILO_DRIVER_TIMEOUT",
        "The device did not answer the kernel driver in time: it hangs, or dropped off the bus.",
        "Reload the driver with the runtime stopped (`sudo systemctl stop prime-spark-edge && sudo "
        "modprobe -r hailo_pci && sudo modprobe hailo_pci`); when that fails, switch the box off "
        "and on.",
    ),
    HailoStatus(
        88,
        "HAILO_DRIVER_INTERRUPTED",
        "A signal interrupted a request to the kernel driver.",
        f"Usual while a process is stopped; else {_RESTART}.",
    ),
    HailoStatus(
        91,
        "HAILO_HEF_FILE_CORRUPTED",
        "The HEF is damaged: its checksum does not fit.",
        "Install the model package again; when it happens again, look at the storage: `sudo "
        "dmesg`, lines with mmc or nvme.",
    ),
    HailoStatus(
        92,
        "HAILO_HEF_NOT_SUPPORTED",
        "The HEF comes from a compiler that this version of the library does not know.",
        "Use a package whose HEF is compiled for the library's version, or update the library: "
        "`sudo apt-get update && sudo apt-get full-upgrade && sudo reboot`.",
    ),
    HailoStatus(
        93,
        "HAILO_HEF_NOT_COMPATIBLE_WITH_DEVICE",
        "The HEF is compiled for another chip; Hailo-8, 8L and 10H each need their own.",
        "Use a package with a HEF for the architecture that `hailortcli fw-control identify` "
        "shows.",
    ),
    HailoStatus(
        94,
        "HAILO_INVALID_HEF_USE",
        "A HEF is used in a way that it does not allow, such as shared weights from a file.",
        "It is an error in a program, not in the box: report it with the log of the runtime.",
        is_of_5=True,
    ),
    HailoStatus(
        95,
        "HAILO_OPERATION_ABORTED",
        "The operation was given up, by an earlier error or on purpose.",
        "Look for the first error before it: that one says why.",
        is_of_5=True,
    ),
    HailoStatus(
        96,
        "HAILO_DEVICE_NOT_CONNECTED",
        "The device is not connected any more.",
        "See whether `lspci -nn -d 1e60:` lists it; check power supply and ribbon, then switch the "
        "box off and on.",
        is_of_5=True,
    ),
    HailoStatus(
        97,
        "HAILO_DEVICE_TEMPORARILY_UNAVAILABLE",
        "The device is busy with itself, as while its firmware starts.",
        f"Wait ten seconds; when it lasts, {_RESTART}.",
        is_of_5=True,
    ),
)

STATUSES: Final[Mapping[int, HailoStatus]] = {row.number: row for row in _ROWS}
"""By number, in the order of the documentation: the driver's mismatch, then ascending."""

_IN_TEXT: Final = re.compile(r"\berror: (\d{1,3})\b|\bHAILO_[A-Z0-9_]+\((\d{1,3})\)")


def explain(number: int) -> HailoStatus:
    """Return what is known of a status; of an unknown one, that it is unknown."""
    return STATUSES.get(number) or HailoStatus(
        number,
        "HAILO_?",
        "The library reports an error that is not in our table.",
        f"Look for the number in hailort.h of the installed version, and {_LOG}.",
    )


def status_in(text: str) -> int | None:
    """Return the last status number that a message or a log names; the last is the outcome."""
    found = [int(first or second) for first, second in _IN_TEXT.findall(text)]
    return found[-1] if found else None
