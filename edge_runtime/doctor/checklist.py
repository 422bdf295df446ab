"""The examination, from the first check to the last.

The four versions of Hailo stand first, because they explain most of what else would be found.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_runtime.config import AcceleratorSettings
from edge_runtime.doctor.binding import binding_check, read_binding
from edge_runtime.doctor.board import board_checks, is_raspberry_pi_5, read_model
from edge_runtime.doctor.box import Box
from edge_runtime.doctor.findings import Check, Report
from edge_runtime.doctor.hailo import NO_DEVICE, hardware_checks
from edge_runtime.doctor.hardware import read_hardware
from edge_runtime.doctor.serving import onnxruntime_check, runtime_check
from edge_runtime.doctor.versions import (
    answer_check,
    read_surroundings,
    read_tool,
    read_versions,
    versions_check,
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What the settings say of the box.

    home: of the edge runtime; ask: returns the runtime's overview, or raises what `local_client`
    raises; python: the interpreter that runs the product.
    """

    accelerator: AcceleratorSettings
    home: Path
    ask: Callable[[], Any]
    python: str = sys.executable


def examine(box: Box, subject: Subject) -> Report:
    """Look at everything; never raises for something that cannot be read."""
    checks = [
        *_hailo(box, subject),
        *board_checks(box, subject.home, platform.python_version()),
        onnxruntime_check(box, subject.python),
        runtime_check(subject.ask),
    ]
    return Report(checks)


def _hailo(box: Box, subject: Subject) -> Iterator[Check]:
    settings, hardware = subject.accelerator, read_hardware(box)
    is_wanted = settings.kind == "hailo"
    if not (hardware.is_meant or is_wanted or settings.driver_path):
        yield Check("hailo device", "ok", NO_DEVICE)
        return
    binding = read_binding(box, settings, subject.python)
    seen = binding.devices or ()
    is_there = hardware.is_there or bool(seen)
    tool = read_tool(box, is_there)
    around = read_surroundings(box, hardware, binding)
    versions = versions_check(read_versions(box, hardware, tool, binding), around)
    checks = [versions]
    if is_there:
        checks.append(answer_check(tool, binding, versions))
    checks.append(binding_check(binding, hardware.family, is_there or is_wanted))
    is_pi_5 = is_raspberry_pi_5(read_model(box))
    checks += hardware_checks(box, hardware, seen, is_wanted, is_pi_5)
    yield from (_softened(check) for check in checks) if settings.kind == "none" else checks
    if settings.kind == "none" and is_there:
        found = "a device is there and not used: edge.accelerator.kind is none"
        yield Check("hailo use", "ok", found)


def _softened(check: Check) -> Check:
    """What is wrong with a device that nobody wants to use stops nothing."""
    return replace(check, state="warning") if check.state == "problem" else check
