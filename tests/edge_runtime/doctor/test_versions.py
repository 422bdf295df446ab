"""Driver, library, binding and firmware are compared, and each mismatch has its own cure."""

from __future__ import annotations

import pytest

from edge_runtime.doctor import Done, Unread
from edge_runtime.doctor.binding import told_by
from edge_runtime.hailo_statuses import STATUSES
from tests.edge_runtime.doctor.pi import NO_BINDING, OWN, SYSTEM, Pi, told

# As a user saw it (viseron #1490): the exit code is the status.
REFUSED = Done(
    76,
    "",
    "[HailoRT] [error] CHECK failed - Driver version (4.23.0) is different from library version "
    "(4.22.0)\n[HailoRT] [error] Driver version mismatch, status HAILO_INVALID_DRIVER_VERSION(76)",
)


def set_library(pi: Pi, version: str) -> None:
    pi.answers["hailortcli --version"] = Done(0, f"HailoRT-CLI version {version}\n")


def set_binding(pi: Pi, version: str, **more: object) -> None:
    found = {"python": "3.13.5", "numpy": "1.26.4", "version": version, "devices": ["x"]}
    pi.answers[f"{SYSTEM} hailo"] = told(**{**found, **more})


def set_driver(pi: Pi, loaded: str, on_disk: str) -> None:
    pi.write("/sys/module/hailo_pci/version", f"{loaded}\n")
    pi.answers["modinfo -F version hailo_pci"] = Done(0, f"{on_disk}\n")


def test_four_versions_alike_are_well_and_come_first(pi: Pi) -> None:
    first = pi.examine().checks[0]
    assert (first.name, first.state, first.remedy) == ("hailo versions", "ok", "")
    assert first.found == "driver 4.23.0, library 4.23.0, binding 4.23.0, firmware 4.23.0"


def test_an_updated_driver_before_an_old_library_asks_for_the_library_of_that_version(
    pi: Pi,
) -> None:
    set_library(pi, "4.20.0")
    set_binding(pi, "4.20.0")
    found = pi.check("hailo versions")
    assert found.state == "problem"
    assert "driver 4.23.0, library 4.20.0" in found.found
    assert "apt-get install 'hailort=4.23.0*' 'python3-hailort=4.23.0*'" in found.remedy


def test_versions_are_compared_as_numbers(pi: Pi) -> None:
    set_driver(pi, "4.9.0", "4.9.0")
    set_library(pi, "4.23.0")
    assert "driver lags" in pi.check("hailo versions").remedy


def test_a_driver_that_is_installed_and_not_loaded_yet_only_asks_for_a_reboot(pi: Pi) -> None:
    set_driver(pi, loaded="4.20.0", on_disk="4.23.0")
    pi.answers["hailortcli fw-control identify"] = REFUSED
    remedy = pi.check("hailo versions").remedy
    assert "driver 4.23.0 is installed and not loaded yet: `sudo reboot`" in remedy
    assert "--reinstall" not in remedy


def test_a_driver_that_was_not_rebuilt_is_rebuilt_by_dkms_on_trixie(pi: Pi) -> None:
    set_driver(pi, "4.20.0", "4.20.0")
    remedy = pi.check("hailo versions").remedy
    assert "`sudo apt-get install --reinstall dkms hailort-pcie-driver && sudo reboot`" in remedy


def test_on_bookworm_the_driver_comes_with_the_kernel(pi: Pi) -> None:
    pi.write("/etc/os-release", "VERSION_CODENAME=bookworm\n")
    set_driver(pi, "4.20.0", "4.20.0")
    remedy = pi.check("hailo versions").remedy
    assert "full-upgrade" in remedy
    assert "--allow-downgrades 'hailort=4.20.0*'" in remedy


@pytest.mark.parametrize("mark", ["/.dockerenv", "/run/.containerenv"])
def test_in_a_container_the_image_is_to_follow_the_host(pi: Pi, mark: str) -> None:
    pi.write(mark, "")
    set_library(pi, "4.20.0")
    set_binding(pi, "4.20.0")
    remedy = pi.check("hailo versions").remedy
    assert remedy.endswith("install HailoRT 4.23.0 in the container's image")


def test_the_librarys_log_tells_the_versions_that_the_kernel_does_not_show(pi: Pi) -> None:
    pi.remove("/sys/module/hailo_pci/version")
    pi.answers["hailortcli --version"] = Done(0, "HailoRT-CLI\n")
    pi.answers["hailortcli fw-control identify"] = REFUSED
    found = pi.check("hailo versions").found
    assert found.startswith("driver 4.23.0, library 4.22.0")


def test_without_hailortcli_the_package_tells_the_librarys_version(pi: Pi) -> None:
    del pi.answers["hailortcli --version"]
    pi.install("hailort 4.20.0-1", "python3-hailort 4.20.0-1")
    found = pi.check("hailo versions")
    assert "library 4.20.0" in found.found
    assert "firmware 4.23.0" in found.found, "the binding tells the firmware"


def test_a_binding_of_another_version_than_the_library_is_replaced_by_apt(pi: Pi) -> None:
    set_binding(pi, "4.20.0")
    remedy = pi.check("hailo versions").remedy
    assert "`sudo apt-get install 'python3-hailort=4.23.0*'`" in remedy
    assert "wheel" not in remedy


def test_the_binding_of_an_own_environment_is_a_wheel(pi: Pi) -> None:
    pi.settings = pi.settings.model_copy(update={"python": "/srv/hailo/bin/python"})
    pi.answers["/srv/hailo/bin/python hailo"] = told(python="3.11.2", version="4.20.0")
    remedy = pi.check("hailo versions").remedy
    assert "wheel hailort 4.23.0 in /srv/hailo/bin/python" in remedy
    assert "edge.accelerator.python" in remedy


@pytest.mark.parametrize(
    ("packages", "cure"),
    [(("hailofw 4.20.0-1", "hailort 4.23.0"), "hailofw"), ((), "hailort-pcie-driver")],
)
def test_firmware_is_replaced_with_the_package_that_brings_it(
    pi: Pi, packages: tuple[str, ...], cure: str
) -> None:
    pi.install(*packages)
    answer = pi.answers["hailortcli fw-control identify"]
    assert isinstance(answer, Done)
    pi.answers["hailortcli fw-control identify"] = Done(0, answer.out.replace("4.23.0", "4.20.0"))
    found = pi.check("hailo versions")
    assert found.state == "problem"
    assert f"`sudo apt-get install --reinstall {cure} && sudo reboot`" in found.remedy


def test_several_mismatches_are_cured_one_after_the_other(pi: Pi) -> None:
    set_binding(pi, "4.20.0")
    set_driver(pi, "4.20.0", "4.23.0")
    remedy = pi.check("hailo versions").remedy
    reboot, binding = remedy.split("; then ")
    assert "sudo reboot" in reboot
    assert "python3-hailort=4.23.0" in binding
    set_driver(pi, "4.23.0", "4.23.0")
    pi.answers["hailortcli fw-control identify"] = Done(0, "Firmware Version: 4.22.0 (release)")
    binding, firmware = pi.check("hailo versions").remedy.split("; then ")
    assert "python3-hailort=4.23.0" in binding
    assert "firmware" in firmware


def test_a_library_of_the_other_family_is_explained_by_the_device(pi: Pi) -> None:
    set_library(pi, "5.1.1")
    set_binding(pi, "5.1.1")
    found = pi.check("hailo versions")
    assert found.state == "problem"
    assert "Hailo-8 and 8L need 4.x, not library 5.1.1 and binding 5.1.1" in found.remedy
    assert "apt-get install dkms hailo-all" in found.remedy


def test_a_hailo_10h_with_all_of_5_is_well(pi: Pi) -> None:
    pi.take_out()
    pi.put_in("0x45c4", "hailo1x_pci", "/dev/h1x-0", "HAILO10H", "5.1.1")
    pi.install("hailo-h10-all 5.1.1", "h10-hailort 5.1.1", "python3-h10-hailort 5.1.1-1")
    report = pi.examine()
    assert [check.name for check in report.checks if check.state != "ok"] == []
    assert "Hailo-10H at 0001:01:00.0 (1e60:45c4)" in pi.check("hailo device").found


@pytest.mark.parametrize(
    ("package", "library"), [("h10-hailort 5.1.1", "h10-hailort"), ("hailort 5.1.1", "hailort")]
)
def test_a_hailo_10h_names_the_packages_that_are_installed(
    pi: Pi, package: str, library: str
) -> None:
    pi.take_out()
    pi.put_in("0x45c4", "hailo1x_pci", "/dev/h1x-0", "HAILO10H", "5.3.0")
    pi.install(package)
    set_library(pi, "5.1.1")
    set_binding(pi, "5.1.1")
    assert f" '{library}=5.3.0*'" in pi.check("hailo versions").remedy


def test_parts_of_two_families_without_a_device_have_a_cure_for_either(pi: Pi) -> None:
    pi.take_out()
    pi.settings = pi.settings.model_copy(update={"kind": "hailo"})
    set_library(pi, "5.1.1")
    set_binding(pi, "4.23.0", devices=[])
    remedy = pi.check("hailo versions").remedy
    assert "library 5.1.1 and binding 4.23.0 are of two families" in remedy
    assert "hailo-all" in remedy
    assert "hailo-h10-all" in remedy


def test_a_library_of_5_alone_is_nothing_wrong_while_no_device_says_otherwise(pi: Pi) -> None:
    pi.take_out()
    pi.settings = pi.settings.model_copy(update={"kind": "hailo"})
    set_library(pi, "5.1.1")
    set_binding(pi, "5.1.1", devices=[])
    assert pi.check("hailo versions").state == "ok"


def test_too_few_versions_are_no_comparison(pi: Pi) -> None:
    pi.remove("/sys/module/hailo_pci/version")
    pi.install()
    for command in ("hailortcli --version", f"{SYSTEM} hailo"):
        del pi.answers[command]
    found = pi.check("hailo versions")
    assert found.state == "unknown"
    assert "driver ?, library ?, binding ?, firmware ?" in found.found


def test_the_driver_of_the_devices_family_counts_when_both_are_loaded(pi: Pi) -> None:
    pi.write("/proc/modules", "hailo1x_pci 1 0 - Live 0x0\nhailo_pci 1 0 - Live 0x0\n")
    pi.write("/sys/module/hailo1x_pci/version", "5.1.1\n")
    assert pi.check("hailo versions").state == "ok"


def test_the_answer_names_the_chip(pi: Pi) -> None:
    found = pi.check("hailo answer")
    assert found.state == "ok"
    assert "HAILO8;" in found.found


def test_a_refusal_for_versions_has_their_remedy(pi: Pi) -> None:
    set_driver(pi, loaded="4.20.0", on_disk="4.23.0")
    pi.answers["hailortcli fw-control identify"] = REFUSED
    found = pi.check("hailo answer")
    assert found.state == "problem"
    assert "status 76 HAILO_INVALID_DRIVER_VERSION" in found.found
    assert "`sudo reboot`" in found.remedy


def test_a_refusal_for_versions_that_nobody_shows_has_the_tables_remedy(pi: Pi) -> None:
    pi.answers["hailortcli fw-control identify"] = Done(76, "")
    assert pi.check("hailo answer").remedy == STATUSES[76].remedy


def test_the_last_status_in_the_log_counts_when_the_exit_code_says_nothing(pi: Pi) -> None:
    log = "failed with HAILO_DRIVER_INVALID_IOCTL(86)\nstatus HAILO_INVALID_DRIVER_VERSION(76)"
    pi.answers["hailortcli fw-control identify"] = Done(1, "", log)
    assert "status 76" in pi.check("hailo answer").found


def test_a_refusal_of_the_binding_is_told_too(pi: Pi) -> None:
    del pi.answers["hailortcli fw-control identify"]
    set_binding(pi, "4.23.0", status=64, trouble="HailoRTException: no driver")
    found = pi.check("hailo answer")
    assert found.found.startswith(f"{SYSTEM} is refused: status 64 HAILO_DRIVER_NOT_INSTALLED")
    assert found.remedy == STATUSES[64].remedy


def test_a_device_that_hangs_the_binding_is_a_problem_and_its_version_is_known(pi: Pi) -> None:
    del pi.answers["hailortcli fw-control identify"]
    started = told(python="3.13.5", version="4.23.0", devices=["0001:01:00.0"])
    pi.answers[f"{SYSTEM} hailo"] = Done(None, started.out)
    assert pi.check("hailo answer").found == f"{SYSTEM}: no answer in time"
    assert pi.check("hailo answer").state == "problem"
    assert pi.check("hailo binding").state == "ok"


def test_trouble_without_a_number_is_quoted_and_the_kernels_log_is_named(pi: Pi) -> None:
    del pi.answers["hailortcli fw-control identify"]
    set_binding(pi, "4.23.0", trouble="HailoRTException: something")
    found = pi.check("hailo answer")
    assert found.found.endswith("HailoRTException: something")
    assert "dmesg" in found.remedy


def test_a_binding_that_sees_no_device_beside_one_on_the_bus_is_a_problem(pi: Pi) -> None:
    del pi.answers["hailortcli fw-control identify"]
    set_binding(pi, "4.23.0", devices=[])
    found = pi.check("hailo answer")
    assert (found.state, found.found) == ("problem", "hailo_platform finds no device")


@pytest.mark.parametrize(
    ("identify", "found"),
    [
        (Done(1, "", "[HailoRT CLI] [error] something new\n"), "something new"),
        (Unread("permission denied"), "permission denied"),
    ],
)
def test_a_tool_that_fails_in_a_new_way_is_quoted(
    pi: Pi, identify: Done | Unread, found: str
) -> None:
    pi.answers["hailortcli fw-control identify"] = identify
    pi.answers[f"{SYSTEM} hailo"] = told(python="3.13.5", error="ImportError: x")
    check = pi.check("hailo answer")
    assert check.state == "unknown"
    assert found in check.found


def test_nobody_who_could_ask_is_said(pi: Pi) -> None:
    del pi.answers["hailortcli fw-control identify"]
    pi.answers["hailortcli --version"] = Unread("")
    pi.answers[f"{SYSTEM} hailo"] = told(python="3.13.5", error="ImportError: x")
    assert pi.check("hailo answer").found == "nothing here can ask it"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (NO_BINDING, "`sudo apt-get install python3-hailort`"),
        (
            "ImportError: libhailort.so.4.23.0: cannot open shared object file",
            "--reinstall hailort python3-hailort`",
        ),
        ("ImportError: numpy.core.multiarray failed to import", "'numpy<2'"),
        (
            "ImportError: _pyhailort version (4.20.0) does not match pyhailort version (4.23.0)",
            "`sudo apt-get install --reinstall python3-hailort`",
        ),
    ],
)
def test_an_import_that_fails_has_a_cure_for_its_reason(pi: Pi, error: str, remedy: str) -> None:
    pi.answers[f"{SYSTEM} hailo"] = told(python="3.13.5", error=error)
    pi.answers[f"{OWN} hailo"] = told(python="3.13.5", error=NO_BINDING)
    found = pi.check("hailo binding")
    assert found.state == "problem"
    assert error in found.found
    assert remedy in found.remedy


def test_a_hailo_10h_needs_a_newer_python_than_bookworms(pi: Pi) -> None:
    pi.take_out()
    pi.put_in("0x45c4", "hailo1x_pci", "/dev/h1x-0", "HAILO10H", "5.1.1")
    for python in (SYSTEM, OWN):
        pi.answers[f"{python} hailo"] = told(python="3.11.2", error=NO_BINDING)
    assert "trixie" in pi.check("hailo binding").remedy


def test_numpy_2_beside_a_binding_of_4_is_a_warning(pi: Pi) -> None:
    set_binding(pi, "4.23.0", numpy="2.2.4")
    found = pi.check("hailo binding")
    assert found.state == "warning"
    assert "pip install 'numpy<2'" in found.remedy


def test_numpy_2_beside_a_binding_of_5_is_well(pi: Pi) -> None:
    pi.take_out()
    pi.put_in("0x45c4", "hailo1x_pci", "/dev/h1x-0", "HAILO10H", "5.1.1")
    set_binding(pi, "5.1.1", numpy="2.2.4")
    assert pi.check("hailo binding").state == "ok"


def test_our_own_interpreter_is_asked_when_the_systems_has_no_binding(pi: Pi) -> None:
    pi.answers[f"{SYSTEM} hailo"] = told(python="3.13.5", error=NO_BINDING)
    pi.answers[f"{OWN} hailo"] = told(python="3.13.5", version="4.23.0", devices=["x"])
    assert OWN in pi.check("hailo binding").found


def test_a_broken_binding_of_the_system_is_not_passed_over(pi: Pi) -> None:
    pi.answers[f"{SYSTEM} hailo"] = told(python="3.13.5", error="ImportError: libhailort")
    pi.answers[f"{OWN} hailo"] = told(python="3.13.5", version="4.23.0")
    assert pi.check("hailo binding").state == "problem"


def test_a_configured_interpreter_that_is_not_there_is_named(pi: Pi) -> None:
    pi.settings = pi.settings.model_copy(update={"python": "/nowhere/python"})
    found = pi.check("hailo binding")
    assert found.state == "problem"
    assert "/nowhere/python (Python ?): it cannot be started" in found.found


def test_a_crash_in_the_import_is_an_error_and_one_after_it_is_trouble() -> None:
    early = told_by("python", Done(-11, '{"python": "3.13.5"}\n'))
    late = told_by("python", Done(-11, '{"version": "4.23.0"}\n'))
    assert (early.error, early.trouble) == ("killed by SIGSEGV", "")
    assert (late.error, late.trouble) == ("", "killed by SIGSEGV")


def test_what_is_no_json_among_the_childs_words_is_left_out() -> None:
    found = told_by("python", Done(0, 'warning!\n[1]\n{"version": "4.23.0"}\n{"version'))
    assert found.version == "4.23.0"
