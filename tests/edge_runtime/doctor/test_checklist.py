"""The whole examination: on a fake driver, on this machine, on rubbish, and as a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.config import AcceleratorSettings
from edge_runtime.doctor import Box, Check, Done, Report, Subject, commands, examine
from edge_runtime.doctor.binding import PROBE
from edge_runtime.hailo_statuses import STATUSES
from load.fake_hailo.device import DRIVER_PATH, FakeDevice
from tests.docs.pages import table
from tests.edge_process import COMMAND, EdgeProcess
from tests.edge_runtime.doctor.pi import OWN, READY, Pi

PAGE = "how-to/check-an-edge-box.md"


@pytest.fixture
def device(tmp_path: Path) -> FakeDevice:
    device = FakeDevice(tmp_path / "device")
    device.create()
    return device


def examined(device: FakeDevice, root: Path) -> dict[str, Check]:
    """Examine a box that has nothing but the fake driver and its device."""
    run = commands({**os.environ, "FAKE_HAILO_DIR": str(device.folder)})
    wanted = AcceleratorSettings(kind="hailo", python=sys.executable, driver_path=DRIVER_PATH)
    root.mkdir(exist_ok=True)
    report = examine(Box(root, run), Subject(wanted, root, lambda: READY))
    return {check.name: check for check in report.checks}


def test_the_fake_driver_is_asked_by_its_interpreter_and_a_whole_device_answers(
    device: FakeDevice, tmp_path: Path
) -> None:
    found = examined(device, tmp_path / "root")
    assert found["hailo versions"].state == "ok"
    assert found["hailo versions"].found.endswith("binding 4.23.0, firmware 4.23.0")
    assert found["hailo answer"].found.startswith("HAILO8;")
    assert found["hailo binding"].found.startswith("hailo_platform 4.23.0 in")
    assert found["hailo device"].state == "ok"


def test_an_updated_driver_is_found_as_76(device: FakeDevice, tmp_path: Path) -> None:
    device.update_driver("4.24.0")
    found = examined(device, tmp_path / "root")
    assert found["hailo answer"].state == "problem"
    assert "status 76 HAILO_INVALID_DRIVER_VERSION" in found["hailo answer"].found
    assert found["hailo answer"].remedy == STATUSES[76].remedy
    assert "binding 4.23.0" in found["hailo versions"].found


def test_a_device_that_dropped_off_is_not_there(device: FakeDevice, tmp_path: Path) -> None:
    device.vanish()
    found = examined(device, tmp_path / "root")
    assert found["hailo device"].state == "problem"
    assert "hailo answer" not in found


def test_a_missing_library_is_told_with_its_name(device: FakeDevice, tmp_path: Path) -> None:
    device.remove_library()
    found = examined(device, tmp_path / "root")["hailo binding"]
    assert found.state == "problem"
    assert "libhailort.so.4.23.0" in found.found


def test_a_device_of_5_answers_too(device: FakeDevice, tmp_path: Path) -> None:
    device.create(architecture="HAILO10H")
    found = examined(device, tmp_path / "root")
    assert found["hailo answer"].found.startswith("HAILO10H;")
    assert found["hailo versions"].state == "ok"


@pytest.mark.parametrize(
    ("module", "status"),
    [
        # A mapped class of the Python layer: the number is in its cause.
        ("raise HailoRTTimeout('late') from HailoRTStatusException('4')", 4),
        ("raise HailoRTStatusException('76')", 76),
        ("raise HailoRTException('libhailort failed with error: 64 (HAILO_X)')", 64),
        ("raise HailoRTException('nothing known')", None),
    ],
)
def test_the_probe_finds_the_number_in_every_kind_of_exception(
    tmp_path: Path, module: str, status: int | None
) -> None:
    (tmp_path / "hailo_platform.py").write_text(
        "__version__ = '4.23.0'\n"
        "class HailoRTStatusException(Exception): pass\n"
        "class HailoRTException(Exception): pass\n"
        "class HailoRTTimeout(HailoRTException): pass\n"
        "class Device:\n"
        "    @classmethod\n"
        f"    def scan(cls):\n        {module}\n"
    )
    done = commands(os.environ)([sys.executable, "-c", PROBE, str(tmp_path)])
    assert isinstance(done, Done)
    last = json.loads(done.out.splitlines()[-1])
    assert last["status"] == status


def test_a_problem_makes_the_report_bad_and_a_warning_or_an_unknown_does_not() -> None:
    good = [Check("a", "ok", ""), Check("b", "warning", ""), Check("c", "unknown", "")]
    assert Report(good).is_good
    assert not Report([*good, Check("d", "problem", "")]).is_good


def test_a_remedy_has_a_row_of_its_own_and_the_document_has_every_field() -> None:
    report = Report([Check("clock", "problem", "1970", "set it"), Check("board", "ok", "Pi")])
    assert report.rows() == [
        ["!!", "clock", "1970"],
        ["", "", "-> set it"],
        ["ok", "board", "Pi"],
    ]
    assert report.document()["checks"][0] == {
        "name": "clock",
        "state": "problem",
        "found": "1970",
        "remedy": "set it",
    }


def test_whatever_goes_wrong_has_a_remedy(pi: Pi) -> None:
    pi.overview = None
    pi.now = 0.0
    pi.space = (0, 1 << 30)
    pi.closed = {"/dev/hailo0"}
    pi.open_device(9, "other", "other")
    pi.answers["vcgencmd get_throttled"] = Done(0, "throttled=0xf000f")
    pi.answers["hailortcli fw-control identify"] = Done(73, "")
    pi.answers[f"{OWN} onnxruntime"] = Done(1, "", "ImportError")
    wrong = [c for c in pi.examine().checks if c.state in ("problem", "warning")]
    assert len(wrong) >= 8
    assert all(check.remedy for check in wrong)


FILES = (
    "/etc/os-release",
    "/proc/sys/kernel/osrelease",
    "/proc/device-tree/model",
    "/sys/class/thermal/thermal_zone0/temp",
    "/proc/meminfo",
    "/proc/mounts",
    "/proc/modules",
    "/sys/module/hailo_pci/version",
    "/sys/bus/pci/devices/0001:01:00.0/device",
    "/sys/bus/pci/devices/0001:01:00.0/current_link_speed",
    "/sys/bus/pci/devices/0001:01:00.0/max_link_speed",
)


@settings(max_examples=60)
@given(data=st.data())
def test_rubbish_in_any_file_and_from_any_command_never_raises(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    pi = Pi(tmp_path_factory.mktemp("pi"))
    rubbish = st.one_of(
        st.text(max_size=40),
        st.integers().map(str),
        st.sampled_from(["0x" + "f" * 30, "9" * 5000, "1.2.3", "4.23.0\n4.24.0", '{"devices": 1}']),
    )
    for file in data.draw(st.lists(st.sampled_from(FILES), unique=True)):
        pi.path(file).write_bytes(data.draw(rubbish).encode("utf-8", "surrogatepass"))
    for command in data.draw(st.lists(st.sampled_from(sorted(pi.answers)), unique=True)):
        code = data.draw(st.sampled_from([0, 1, 76, -11, None]))
        pi.answers[command] = Done(code, data.draw(rubbish), data.draw(rubbish))
    report = pi.examine()
    json.dumps(report.document())


def test_a_box_of_which_nothing_can_be_read_is_examined_to_the_end(tmp_path: Path) -> None:
    def refuse(command: Sequence[str]) -> Done:
        return Done(1, "", "refused")

    wanted = AcceleratorSettings(kind="hailo")
    report = examine(Box(tmp_path, refuse), Subject(wanted, Path("/"), lambda: READY))
    states = {check.name: check.state for check in report.checks}
    assert states["system"] == states["kernel"] == states["memory"] == "unknown"
    assert states["hailo driver"] == "unknown"


def test_the_command_says_the_same_to_people_and_machines_and_ends_with_1_for_a_problem(
    tmp_path: Path,
) -> None:
    with EdgeProcess(tmp_path / "home") as process:
        shown = process.run("edge", "doctor")
        told = process.run("edge", "doctor", "--json")
    assert shown.returncode == told.returncode == 1, shown.stderr + told.stderr
    names = [check["name"] for check in json.loads(told.stdout)["checks"]]
    assert {"hailo device", "system", "onnxruntime", "runtime"} <= set(names)
    assert all(name in shown.stdout for name in names)
    assert "no edge runtime runs here" in shown.stdout


def test_the_command_ends_with_0_when_the_runtime_serves_and_nothing_else_is_a_problem(
    tmp_path: Path,
) -> None:
    with EdgeProcess(tmp_path / "home") as process:
        process.start()
        done = process.run("edge", "doctor", "--json")
        checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        assert checks["runtime"]["found"].startswith("ready")
        problems = [name for name, check in checks.items() if check["state"] == "problem"]
        assert "runtime" not in problems
        assert done.returncode == (1 if problems else 0), done.stdout
        process.stop()


def test_the_command_makes_no_home(tmp_path: Path) -> None:
    subprocess.run(
        [COMMAND, "--home", str(tmp_path / "new"), "edge", "doctor"],
        capture_output=True,
        timeout=60,
    )
    assert not (tmp_path / "new").exists()


def test_the_page_names_every_check_and_no_other(pi: Pi) -> None:
    seen = set(pi.names())
    pi.settings = pi.settings.model_copy(update={"kind": "none"})
    seen |= set(pi.names())
    assert {name for name, *_ in table(PAGE, "check")} == seen
