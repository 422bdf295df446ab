"""Device, link, driver, node, users and packages are looked at as the kernel and dpkg show them."""

from __future__ import annotations

import pytest

from edge_runtime.doctor import Check
from edge_runtime.doctor.hailo import users_check
from edge_runtime.doctor.hardware import Hardware
from tests.edge_runtime.doctor.pi import NOT_THERE, PCI, SYSTEM, Pi, told


@pytest.mark.parametrize(
    ("number", "title"),
    [
        ("0x2864", "Hailo-8 or 8L at 0001:01:00.0 (1e60:2864)"),
        ("0x45c4", "Hailo-10H at 0001:01:00.0 (1e60:45c4)"),
        ("0x43a2", "Hailo-15L at 0001:01:00.0 (1e60:43a2)"),
        ("0x1234", "device 0x1234 at 0001:01:00.0 (1e60:1234)"),
    ],
)
def test_a_device_is_named_by_its_pci_number(pi: Pi, number: str, title: str) -> None:
    pi.write(f"{PCI}/device", f"{number}\n")
    assert pi.check("hailo device").found == title


@pytest.mark.parametrize("kind", ["none", "auto"])
def test_without_a_device_that_anybody_wants_there_is_one_check_and_it_is_well(
    pi: Pi, kind: str
) -> None:
    pi.take_out()
    pi.settings = pi.settings.model_copy(update={"kind": kind})
    report = pi.examine()
    (found,) = [check for check in report.checks if check.name.startswith("hailo")]
    assert found == Check("hailo device", "ok", "no Hailo device was found")
    assert report.is_good


def test_a_device_that_is_wanted_and_not_there_is_a_problem(pi: Pi) -> None:
    pi.take_out()
    pi.settings = pi.settings.model_copy(update={"kind": "hailo"})
    found = pi.check("hailo device")
    assert (found.state, found.found) == ("problem", "no Hailo device was found")
    assert "lspci -nn -d 1e60:" in found.remedy
    assert pi.check("hailo driver").state == "ok", "only the cause is a problem"


def test_a_machine_without_pci_has_no_device(pi: Pi) -> None:
    pi.take_out()
    pi.path("/sys/bus/pci").rename(pi.path("/sys/bus/usb"))
    assert pi.check("hailo device").state == "ok"


def test_a_bus_that_cannot_be_read_is_said(pi: Pi) -> None:
    pi.path("/sys/bus/pci/devices").rename(pi.path("/sys/bus/pci/old"))
    pi.link("/sys/bus/pci/devices", "devices")  # a link to itself cannot be followed
    found = pi.check("hailo device")
    assert found.state == "unknown"
    assert found.found.startswith("could not be read: ")


def test_a_node_without_a_bus_is_a_device_as_in_a_container(pi: Pi) -> None:
    pi.write(f"{PCI}/vendor", "0x144d\n")
    found = pi.check("hailo device")
    assert found.state == "ok"
    assert "/dev/hailo0" in found.found


def test_a_slow_link_on_a_pi_5_is_a_warning_with_the_line_for_config_txt(pi: Pi) -> None:
    pi.write(f"{PCI}/current_link_speed", "5.0 GT/s PCIe\n")
    found = pi.check("hailo link")
    assert found.state == "warning"
    assert found.found == "5.0 GT/s PCIe of 8.0 GT/s PCIe, width 1 of 4"
    assert "`dtparam=pciex1_gen=3` to /boot/firmware/config.txt" in found.remedy
    assert pi.examine().is_good


def test_a_slow_link_elsewhere_is_a_warning_of_another_kind(pi: Pi) -> None:
    pi.remove("/proc/device-tree/model")
    pi.write(f"{PCI}/current_link_speed", "2.5 GT/s PCIe\n")
    found = pi.check("hailo link")
    assert found.state == "warning"
    assert "dtparam" not in found.remedy


@pytest.mark.parametrize("speed", ["8.0 GT/s PCIe", "16.0 GT/s PCIe", "Unknown"])
def test_a_link_as_fast_as_the_device_or_of_unknown_speed_is_well(pi: Pi, speed: str) -> None:
    pi.write(f"{PCI}/current_link_speed", f"{speed}\n")
    assert pi.check("hailo link").state == "ok"


def test_a_driver_of_the_other_family_is_a_problem_with_the_right_package(pi: Pi) -> None:
    pi.write("/proc/modules", "")
    pi.load("hailo1x_pci", "5.1.1")
    found = pi.check("hailo driver")
    assert found.state == "problem"
    assert "hailo1x_pci is loaded, but Hailo-8 or 8L" in found.found
    assert "needs hailo_pci" in found.found
    assert "apt-get install dkms hailo-all" in found.remedy


def test_both_drivers_loaded_are_well_where_one_is_the_right_one(pi: Pi) -> None:
    pi.load("hailo1x_pci", "5.1.1")
    found = pi.check("hailo driver")
    assert found.state == "ok"
    assert "hailo_pci and hailo1x_pci" in found.found


def test_a_driver_that_is_installed_and_not_loaded_does_not_count(pi: Pi) -> None:
    pi.write("/proc/modules", "")
    found = pi.check("hailo driver")
    assert found.found == "hailo_pci is not loaded"
    assert "`sudo modprobe hailo_pci`" in found.remedy


def test_a_driver_that_did_not_start_the_device_is_a_problem(pi: Pi) -> None:
    pi.remove(f"{PCI}/driver")
    found = pi.check("hailo driver")
    assert found.state == "problem"
    assert "did not start 0001:01:00.0" in found.found
    assert "dmesg" in found.remedy


def test_a_driver_for_an_unknown_device_is_not_judged(pi: Pi) -> None:
    pi.write(f"{PCI}/device", "0x1234\n")
    pi.write("/proc/modules", "")
    assert pi.check("hailo driver").state == "unknown"


def test_a_kernel_without_modules_is_asked_another_way(pi: Pi) -> None:
    pi.remove("/proc/modules")
    assert pi.check("hailo driver").found == "hailo_pci is loaded"
    pi.path("/sys/module").rename(pi.path("/sys/hidden"))
    assert pi.check("hailo driver").state == "unknown"


def test_either_name_of_the_node_will_do(pi: Pi) -> None:
    pi.remove("/dev/hailo0")
    pi.write("/dev/h1x-0", "")
    found = pi.check("hailo node")
    assert (found.state, found.found) == ("ok", "/dev/h1x-0")


def test_a_loaded_driver_without_a_node_is_a_problem(pi: Pi) -> None:
    pi.remove("/dev/hailo0")
    assert pi.check("hailo node").state == "problem"


def test_a_loaded_driver_without_node_and_device_is_well(pi: Pi) -> None:
    pi.take_out()
    pi.load("hailo_pci", "4.23.0")
    assert pi.check("hailo node").state == "ok"


@pytest.mark.parametrize("is_10h", [False, True])
def test_a_node_that_this_user_may_not_open_has_the_rule_reapplied(pi: Pi, is_10h: bool) -> None:
    if is_10h:
        pi.take_out()
        pi.put_in("0x45c4", "hailo1x_pci", "/dev/h1x-0", "HAILO10H", "5.1.1")
    pi.closed = {"/dev/hailo0", "/dev/h1x-0"}
    found = pi.check("hailo node")
    assert found.state == "problem"
    assert f"udevadm trigger -s {'hailo1x' if is_10h else 'hailo_chardev'}`" in found.remedy


def test_nobody_has_the_device_open(pi: Pi) -> None:
    pi.write("/proc/1/comm", "systemd")
    assert pi.check("hailo users").found == "nobody has it open"


def test_another_program_that_has_the_device_is_named_with_its_pid(pi: Pi) -> None:
    pi.open_device(4711, "frigate.detecto", "python3 -m frigate")
    found = pi.check("hailo users")
    assert found.state == "warning"
    assert found.found == "open in 4711 frigate.detecto"
    assert "sudo kill 4711" in found.remedy


@pytest.mark.parametrize(
    "command",
    [
        "/usr/bin/python3 /opt/x/lib/edge_runtime/accelerator/host 7",
        "/opt/prime-spark/current/bin/python /opt/prime-spark/current/bin/prime-spark edge run",
    ],
)
def test_our_own_runtime_may_have_the_device(pi: Pi, command: str) -> None:
    pi.open_device(52, "python3", command)
    found = pi.check("hailo users")
    assert (found.state, found.found) == ("ok", "open in 52 python3")


def test_processes_that_cannot_be_looked_at_leave_it_open() -> None:
    found = users_check(Hardware([], [], ["/dev/hailo0"], [], [], hidden=12))
    assert found.state == "unknown"
    assert "12 processes" in found.found
    assert found.remedy.startswith("`sudo prime-spark edge doctor`")


def test_a_process_with_files_that_cannot_be_listed_is_counted(pi: Pi) -> None:
    pi.link("/proc/99/fd", "fd")  # a link to itself cannot be followed
    found = pi.check("hailo users")
    assert found.state == "unknown"
    assert "1 processes" in found.found


def test_packages_of_the_other_family_are_removed_by_name(pi: Pi) -> None:
    pi.install("hailort 4.23.0", "h10-hailort 5.1.1", "python3-h10-hailort 5.1.1-1")
    found = pi.check("hailo packages")
    assert found.state == "problem"
    assert "`sudo apt-get remove h10-hailort python3-h10-hailort`" in found.remedy


def test_the_vendors_packages_of_5_have_the_names_of_4_and_do_not_fit_a_hailo_8(pi: Pi) -> None:
    pi.install("hailort 5.3.0", "hailort-pcie-driver 5.3.0")
    found = pi.check("hailo packages")
    assert found.state == "problem"
    assert found.found.startswith("hailort hailort-pcie-driver not for Hailo-8")


def test_the_number_of_hailo_all_is_no_version_of_hailort(pi: Pi) -> None:
    pi.install("hailo-all 5.1.1", "hailort 4.23.0", "hailo-tappas-core 5.1.0")
    found = pi.check("hailo packages")
    assert (found.state, found.found) == ("ok", "hailo-all 5.1.1, hailort 4.23.0")


def test_packages_of_both_families_without_a_device_have_a_cure_for_either(pi: Pi) -> None:
    pi.take_out()
    pi.install("hailort 4.23.0", "h10-hailort 5.1.1")
    found = pi.check("hailo packages")
    assert found.state == "problem"
    assert "for Hailo-8 and 8L `sudo apt-get remove h10-hailort`" in found.remedy
    assert "for Hailo-10H and 15 `sudo apt-get remove hailort`" in found.remedy


@pytest.mark.parametrize("status", ["iF ", "iU ", "iHR"])
def test_a_package_that_is_half_installed_is_a_problem(pi: Pi, status: str) -> None:
    pi.install("hailort-pcie-driver 4.23.0", status=status)
    found = pi.check("hailo packages")
    assert found.state == "problem"
    assert "dpkg --configure -a" in found.remedy


def test_a_removed_package_whose_settings_stay_is_not_installed(pi: Pi) -> None:
    pi.install("h10-hailort 5.1.1", status="rc ")
    assert pi.check("hailo packages").found == "none installed"


def test_a_system_without_dpkg_is_said(pi: Pi) -> None:
    pi.answers["dpkg-query"] = NOT_THERE
    assert pi.check("hailo packages").state == "unknown"


def test_what_is_wrong_with_a_device_that_nobody_wants_is_no_problem(pi: Pi) -> None:
    pi.remove("/dev/hailo0")
    pi.settings = pi.settings.model_copy(update={"kind": "none"})
    report = pi.examine()
    assert report.is_good
    assert pi.check("hailo node").state == "warning"
    assert "not used" in pi.check("hailo use").found


def test_packages_alone_are_looked_at_without_calling_their_absence_of_a_device_wrong(
    pi: Pi,
) -> None:
    pi.take_out()
    pi.install("hailort 4.23.0")
    pi.answers[f"{SYSTEM} hailo"] = told(python="3.13.5", error="ImportError: x")
    report = pi.examine()
    assert report.is_good
    assert "hailo answer" not in [check.name for check in report.checks]


def test_nothing_of_hailo_is_run_where_there_is_no_trace_of_it(pi: Pi) -> None:
    pi.take_out()
    pi.examine()
    assert "dpkg-query" in pi.asked
    assert not [command for command in pi.asked if "hailo" in command]
