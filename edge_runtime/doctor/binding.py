"""Asking the interpreter that has the vendor's Python package: its version, and the device.

A child of that interpreter imports `hailo_platform` as the accelerator host would, with the
configured driver path in front, and tells as it goes, one JSON object a line: a crash or a hang in
native code leaves what was learned before it. The child opens the control channel only, which is
free to every process beside the one that runs models.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_runtime.config import AcceleratorSettings
from edge_runtime.doctor.box import Box, Done, Unread
from edge_runtime.doctor.families import HAILO_8, HAILO_10, Family, family_of, major
from edge_runtime.doctor.findings import Check

SYSTEM_PYTHON: Final = "/usr/bin/python3"

# For any Python from 3.9 on. The binding's own exception has the number as its argument; those of
# the Python layer have that one as their cause, or the number in their text.
PROBE: Final = """
import json, re, sys
sys.path[:0] = sys.argv[1:]
def tell(**found):
    print(json.dumps(found), flush=True)
def number(error):
    while error is not None:
        text = str(error)
        if type(error).__name__ == "HailoRTStatusException" and text.isdecimal():
            return int(text)
        named = re.search(r"error: (\\d+)", text)
        if named:
            return int(named.group(1))
        error = error.__cause__
    return None
tell(python="%d.%d.%d" % sys.version_info[:3])
try:
    import numpy
    tell(numpy=numpy.__version__)
except Exception:
    pass
try:
    import hailo_platform
except Exception as error:
    tell(error="%s: %s" % (type(error).__name__, error))
    sys.exit(0)
tell(version=str(getattr(hailo_platform, "__version__", "")))
try:
    found = hailo_platform.Device.scan()
    tell(devices=[str(device) for device in found])
    for name in found[:1]:
        device = hailo_platform.Device(name)  # its destructor would close it
        told = device.control.identify()
        firmware = told.firmware_version
        tell(
            firmware="%d.%d.%d" % (firmware.major, firmware.minor, firmware.revision),
            architecture=str(told.device_architecture).rpartition(".")[2],
        )
        device.release()
except Exception as error:
    tell(status=number(error), trouble="%s: %s" % (type(error).__name__, error))
"""


@dataclass(frozen=True, slots=True)
class Binding:
    """What an interpreter told.

    error: why the package cannot be imported; devices: ids, None when it did not come so far;
    status: of HailoRT, when it refused the device; trouble: why the device did not answer;
    is_cut_off: it hung or crashed; log: what the library wrote meanwhile.
    """

    interpreter: str
    python: str = ""
    numpy: str = ""
    version: str = ""
    error: str = ""
    devices: Sequence[str] | None = None
    firmware: str = ""
    architecture: str = ""
    status: int | None = None
    trouble: str = ""
    is_cut_off: bool = False
    log: str = ""

    @property
    def is_absent(self) -> bool:
        """Whether the interpreter works and has no such package."""
        return self.error.startswith("ModuleNotFoundError") and "'hailo_platform'" in self.error


def read_binding(box: Box, settings: AcceleratorSettings, own_python: str) -> Binding:
    """Ask the configured interpreter; without one the system's, else our own."""
    interpreters = [settings.python] if settings.python else [own_python]
    if not settings.python and box.exists(SYSTEM_PYTHON):
        interpreters.insert(0, SYSTEM_PYTHON)
    told: list[Binding] = []
    for interpreter in interpreters:
        told.append(_ask(box, interpreter, settings.driver_path))
        if not told[-1].is_absent:
            return told[-1]
    return told[0]


def binding_check(binding: Binding, family: Family | None, is_wanted: bool) -> Check:
    """Say whether the package can be imported. is_wanted: a device is there or asked for."""
    name = "hailo binding"
    where = f"{binding.interpreter} (Python {binding.python or '?'})"
    if binding.error and not is_wanted:
        return Check(name, "ok", f"{where}: {binding.error}")
    if binding.error:
        return Check(name, "problem", f"{where}: {binding.error}", _remedy(binding, family))
    found = f"hailo_platform {binding.version} in {where}"
    # Requirement of 4.20 to 4.23 on every Python; 5.x relaxed it.
    if major(binding.version) == 4 and major(binding.numpy) >= 2:
        return Check(name, "warning", f"{found}, with numpy {binding.numpy}", _numpy(binding))
    return Check(name, "ok", found)


def _remedy(binding: Binding, family: Family | None) -> str:
    family = family or family_of(binding.version) or HAILO_8
    if family is HAILO_10 and 0 < _minor(binding.python) < 13:
        return f"{family.binding} needs Python 3.13: use Raspberry Pi OS trixie"
    if "shared object" in binding.error:
        packages = f"{family.library} {family.binding}"
        return f"library and binding do not fit: `sudo apt-get install --reinstall {packages}`"
    if "numpy" in binding.error.lower():
        return _numpy(binding)
    if not binding.is_absent:
        return f"`sudo apt-get install --reinstall {family.binding}`"
    return (
        f"`sudo apt-get install {family.binding}` gives it to {SYSTEM_PYTHON}; for another "
        "interpreter install the vendor's wheel in it and set edge.accelerator.python"
    )


def _numpy(binding: Binding) -> str:
    return (
        f"it asks for numpy below 2: set edge.accelerator.python to {SYSTEM_PYTHON}, which has "
        f"Debian's, or `{binding.interpreter} -m pip install 'numpy<2'`"
    )


def _minor(python: str) -> int:
    return major(python.partition(".")[2])


def _ask(box: Box, interpreter: str, driver_path: Path | None) -> Binding:
    extra = [str(driver_path)] if driver_path else []
    done = box.run([interpreter, "-c", PROBE, *extra])
    if isinstance(done, Unread):
        return Binding(interpreter, error=f"it cannot be started: {done.why}")
    return told_by(interpreter, done)


def told_by(interpreter: str, done: Done) -> Binding:
    """Read what the child told before it ended, however it ended."""
    told: dict[str, Any] = {}
    for line in done.out.splitlines():
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            told |= found if isinstance(found, dict) else {}
    status, devices = told.get("status"), told.get("devices")
    error, trouble = _text(told, "error"), _text(told, "trouble")
    if done.code != 0:
        # It ended before the import was through, or in a call to the device.
        error = error or ("" if "version" in told else done.trouble)
        trouble = trouble or ("" if error else done.trouble)
    return Binding(
        interpreter,
        python=_text(told, "python"),
        numpy=_text(told, "numpy"),
        version=_text(told, "version"),
        error=error,
        devices=[str(device) for device in devices] if isinstance(devices, list) else None,
        firmware=_text(told, "firmware"),
        architecture=_text(told, "architecture"),
        status=status if isinstance(status, int) else None,
        trouble=trouble,
        is_cut_off=done.code is None or done.code < 0,
        log=done.err,
    )


def _text(told: Mapping[str, Any], key: str) -> str:
    return str(told.get(key) or "")
