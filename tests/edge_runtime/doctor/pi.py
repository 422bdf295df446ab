"""A machine made of a folder and of commands that answer from a table.

`Pi` begins as a healthy Raspberry Pi 5 with a Hailo-8 on trixie; texts are those that users and
the vendor's sources show. A test then breaks one thing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_runtime.config import AcceleratorSettings
from edge_runtime.doctor import Box, Check, Done, Report, Subject, Unread, examine
from edge_runtime.errors import Unavailable

OWN = "/opt/prime-spark/current/bin/python"
SYSTEM = "/usr/bin/python3"
PCI = "/sys/bus/pci/devices/0001:01:00.0"
IDENTIFIED = """Executing on device: 0001:01:00.0
Identifying board
Control Protocol Version: 2
Firmware Version: {version} (release,app,extended context switch buffer)
Logger Version: 0
Board Name: Hailo-8
Device Architecture: {chip}
"""
NOT_THERE = Unread("no such file or directory", is_absent=True)
READY = {"status": "ready", "reasons": [], "models": [{"model": "digits"}]}
NO_BINDING = "ModuleNotFoundError: No module named 'hailo_platform'"


def told(**found: object) -> Done:
    """What the probe prints: an object a line."""
    return Done(0, "\n".join(json.dumps({key: value}) for key, value in found.items()))


class Pi:
    """The machine. answers: by command; a probe of an interpreter is `PATH hailo`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1_760_000_000.0
        self.space: tuple[int, int] | OSError = (20 << 30, 30 << 30)
        self.closed: set[str] = set()
        self.asked: list[str] = []
        self.overview: Any = READY
        self.settings = AcceleratorSettings(kind="auto")
        self.home = Path("/var/lib/prime-spark")
        self.answers: dict[str, Done | Unread] = {
            "getconf PAGESIZE": Done(0, "16384\n"),
            "vcgencmd get_throttled": Done(0, "throttled=0x0\n"),
            "timedatectl show -p NTPSynchronized": Done(0, "NTPSynchronized=yes\n"),
            f"{OWN} onnxruntime": Done(0, "1.27.0\n"),
        }
        self.write(
            "/etc/os-release",
            'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_CODENAME=trixie\n',
        )
        self.write("/proc/sys/kernel/osrelease", "6.12.47+rpt-rpi-2712\n")
        self.write("/proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
        self.write("/sys/class/thermal/thermal_zone0/temp", "51234\n")
        self.write("/proc/meminfo", "MemTotal: 8 kB\nMemAvailable:    4096000 kB\n")
        self.write("/proc/mounts", "/dev/mmcblk0p2 / ext4 rw,noatime 0 0\n")
        self.write("/proc/modules", "")
        self.write("/usr/bin/python3", "")
        self.write("/sys/bus/pci/devices/0000:00:00.0/vendor", "0x14e4\n")
        self.put_in("0x2864", "hailo_pci", "/dev/hailo0", "HAILO8", "4.23.0")
        self.install("hailo-all 5.1.1", "hailort 4.23.0", "python3-hailort 4.23.0-1")

    def put_in(self, number: str, module: str, node: str, chip: str, version: str) -> None:
        """Put this device in, with all four versions alike."""
        self.write(f"{PCI}/vendor", "0x1e60\n")
        self.write(f"{PCI}/device", f"{number}\n")
        self.write(f"{PCI}/current_link_speed", "8.0 GT/s PCIe\n")
        self.write(f"{PCI}/max_link_speed", "8.0 GT/s PCIe\n")
        self.write(f"{PCI}/current_link_width", "1\n")
        self.write(f"{PCI}/max_link_width", "4\n")
        self.link(f"{PCI}/driver", "../../../../bus/pci/drivers/hailo")
        self.load(module, version)
        self.write(node, "")
        identified = IDENTIFIED.format(version=version, chip=chip)
        self.answers["hailortcli --version"] = Done(0, f"HailoRT-CLI version {version}\n")
        self.answers["hailortcli fw-control identify"] = Done(0, identified)
        self.answers[f"{SYSTEM} hailo"] = told(
            python="3.13.5",
            numpy="1.26.4",
            version=version,
            devices=["0001:01:00.0"],
            firmware=version,
            architecture=chip,
        )

    def load(self, module: str, version: str) -> None:
        """Load a driver, and have the same on disk."""
        with self.path("/proc/modules").open("a") as file:
            file.write(f"{module} 147456 0 - Live 0x0000000000000000 (O)\n")
        self.write(f"/sys/module/{module}/version", f"{version}\n")
        self.answers[f"modinfo -F version {module}"] = Done(0, f"{version}\n")

    def take_out(self) -> None:
        """Take the device out, with its driver and its packages."""
        self.write(f"{PCI}/vendor", "0x144d\n")
        self.write("/proc/modules", "nvme 1 0 - Live 0x0\n")
        for node in ("/dev/hailo0", "/dev/h1x-0"):
            self.path(node).unlink(missing_ok=True)
        for command in [c for c in self.answers if "hailo" in c]:
            del self.answers[command]
        self.answers[f"{SYSTEM} hailo"] = told(python="3.13.5", error=NO_BINDING)
        self.answers[f"{OWN} hailo"] = told(python="3.13.5", error=NO_BINDING)
        self.install()

    def install(self, *packages: str, status: str = "ii ") -> None:
        """Have these Debian packages, `name version` each, and no others."""
        lines = [f"{status}|{name.replace(' ', '|')}\n" for name in packages]
        self.answers["dpkg-query"] = Done(0, "un |hailo-dkms|\n" + "".join(lines))

    def path(self, absolute: str) -> Path:
        return self.root / absolute.lstrip("/")

    def write(self, absolute: str, text: str) -> None:
        path = self.path(absolute)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def link(self, absolute: str, target: str) -> None:
        path = self.path(absolute)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def remove(self, absolute: str) -> None:
        self.path(absolute).unlink()

    def open_device(self, pid: int, name: str, command: str, node: str = "/dev/hailo0") -> None:
        """Have a process that has the device open."""
        self.write(f"/proc/{pid}/comm", f"{name}\n")
        self.write(f"/proc/{pid}/cmdline", command.replace(" ", "\0") + "\0")
        self.link(f"/proc/{pid}/fd/0", "/dev/null")
        self.link(f"/proc/{pid}/fd/7", node)

    def box(self) -> Box:
        return Box(self.root, self._run, lambda: self.now, self._may_open, self._space)

    def examine(self) -> Report:
        subject = Subject(self.settings, self.home, self._ask, OWN)
        return examine(self.box(), subject)

    def check(self, name: str) -> Check:
        """Examine it, and return the one check of this name."""
        (found,) = [check for check in self.examine().checks if check.name == name]
        return found

    def names(self) -> list[str]:
        return [check.name for check in self.examine().checks]

    def _run(self, command: Sequence[str]) -> Done | Unread:
        program = command[0]
        match list(command[1:]):
            case ["-c", code, *_] if "hailo_platform" in code:
                key = f"{program} hailo"
            case ["-c", *_]:
                key = f"{program} onnxruntime"
            case _ if program == "dpkg-query":
                key = program
            case _:
                key = " ".join(command)
        self.asked.append(key)
        return self.answers.get(key, Unread(f"there is no {program}", is_absent=True))

    def _may_open(self, path: Path) -> bool:
        return f"/{path.relative_to(self.root)}" not in self.closed

    def _space(self, path: Path) -> tuple[int, int]:
        if isinstance(self.space, OSError):
            raise self.space
        if path != Path("/var"):
            raise FileNotFoundError(path)
        return self.space

    def _ask(self) -> Any:
        if self.overview is None:
            raise Unavailable("no edge runtime runs here")
        if isinstance(self.overview, Exception):
            raise self.overview
        return self.overview
