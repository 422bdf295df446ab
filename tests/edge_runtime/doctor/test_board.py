"""System, heat, power, memory, clock and storage are judged by their limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.doctor import Done, Unread
from edge_runtime.doctor.board import mount_of
from tests.edge_runtime.doctor.pi import Pi


def test_a_healthy_pi_has_nothing_but_good_checks(pi: Pi) -> None:
    report = pi.examine()
    assert [check for check in report.checks if check.state != "ok"] == []
    assert report.is_good
    assert all(not check.remedy for check in report.checks)


def test_system_board_and_kernel_are_named(pi: Pi) -> None:
    assert pi.check("system").found.startswith("Debian GNU/Linux 13 (trixie), Python 3.")
    assert pi.check("board").found == "Raspberry Pi 5 Model B Rev 1.0"
    assert pi.check("kernel").found.startswith("6.12.47+rpt-rpi-2712, pages of 16 KiB")


def test_pages_of_16_kib_are_noted_and_others_are_not(pi: Pi) -> None:
    assert "status 8" in pi.check("kernel").found
    pi.answers["getconf PAGESIZE"] = Done(0, "4096\n")
    assert pi.check("kernel").found == "6.12.47+rpt-rpi-2712, pages of 4 KiB"
    del pi.answers["getconf PAGESIZE"]
    assert pi.check("kernel").found == "6.12.47+rpt-rpi-2712, pages of ?"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("system", "/etc/os-release"),
        ("kernel", "/proc/sys/kernel/osrelease"),
        ("memory", "/proc/meminfo"),
    ],
)
def test_a_file_that_is_missing_is_said_and_is_no_problem(pi: Pi, name: str, file: str) -> None:
    pi.remove(file)
    found = pi.check(name)
    assert (found.state, found.found) == ("unknown", "could not be read: no such file or directory")
    assert pi.examine().is_good


@pytest.mark.parametrize(
    ("milli", "state"), [("79900", "ok"), ("80000", "warning"), ("85000", "problem")]
)
def test_the_warmest_sensor_is_judged(pi: Pi, milli: str, state: str) -> None:
    pi.write("/sys/class/thermal/thermal_zone1/temp", milli)
    pi.write("/sys/class/thermal/cooling_device0/temp", "99000")
    pi.write("/sys/class/thermal/thermal_zone2/temp", "not a number")
    found = pi.check("temperature")
    assert found.state == state
    assert bool(found.remedy) == (state != "ok")


def test_a_machine_without_sensors_is_said(pi: Pi) -> None:
    pi.remove("/sys/class/thermal/thermal_zone0/temp")
    assert pi.check("temperature").found == "could not be read: there is no sensor"
    pi.path("/sys/class/thermal").rename(pi.path("/sys/class/cold"))
    assert pi.check("temperature").state == "unknown"


@pytest.mark.parametrize(
    ("flags", "state", "found"),
    [
        ("0x0", "ok", "enough, and never throttled since the start"),
        ("0x1", "problem", "now under-voltage"),
        ("0x2", "warning", "now clock capped"),
        ("0x4", "warning", "now throttled"),
        ("0x8", "warning", "now at the soft temperature limit"),
        ("0x10000", "warning", "before under-voltage"),
        ("0x20000", "warning", "before clock capped"),
        ("0x40000", "warning", "before throttled"),
        ("0x80000", "warning", "before at the soft temperature limit"),
        (
            "0x50005",
            "problem",
            "now under-voltage, throttled; before under-voltage, throttled",
        ),
    ],
)
def test_each_bit_of_the_firmware_is_decoded(pi: Pi, flags: str, state: str, found: str) -> None:
    pi.answers["vcgencmd get_throttled"] = Done(0, f"throttled={flags}\n")
    check = pi.check("power")
    assert (check.state, check.found) == (state, found)
    assert ("supply" in check.remedy) == ("under-voltage" in found)


def test_the_kernels_file_tells_the_bits_where_vcgencmd_may_not(pi: Pi) -> None:
    pi.answers["vcgencmd get_throttled"] = Done(255, "", "Can't open device file: /dev/vcio")
    pi.write("/sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n")
    assert pi.check("power").found == "before under-voltage, throttled"


def test_a_pi_that_tells_no_bits_is_said_and_another_board_is_not_asked(pi: Pi) -> None:
    del pi.answers["vcgencmd get_throttled"]
    assert pi.check("power").state == "unknown"
    pi.answers["vcgencmd get_throttled"] = Done(0, "error=1")
    assert "'error=1' is no number" in pi.check("power").found
    pi.write("/proc/device-tree/model", "Radxa ROCK 5B")
    assert "power" not in pi.names()


@pytest.mark.parametrize(
    ("mib", "state"), [(256, "ok"), (255, "warning"), (64, "warning"), (63, "problem")]
)
def test_memory_that_is_low_is_told(pi: Pi, mib: int, state: str) -> None:
    pi.write("/proc/meminfo", f"MemTotal: 9 kB\nMemAvailable:   {mib << 10} kB\n")
    found = pi.check("memory")
    assert (found.state, found.found) == (state, f"{mib} MiB available")


def test_a_kernel_that_does_not_tell_available_memory_is_said(pi: Pi) -> None:
    pi.write("/proc/meminfo", "MemTotal: 9 kB\n")
    assert pi.check("memory").state == "unknown"


@pytest.mark.parametrize(
    ("now", "answer", "state", "words"),
    [
        (1_704_067_200.0, "NTPSynchronized=yes", "ok", "2024-01-01 00:00 UTC, synchronised"),
        (1_704_067_199.0, "NTPSynchronized=yes", "problem", "2023-12-31 23:59 UTC: wrong"),
        (0.0, "NTPSynchronized=no", "problem", "1970-01-01"),
        (1_760_000_000.0, "NTPSynchronized=no", "warning", "not synchronised"),
        (1_760_000_000.0, "", "ok", "not known"),
    ],
)
def test_the_clock_is_judged_by_its_year_and_its_source(
    pi: Pi, now: float, answer: str, state: str, words: str
) -> None:
    pi.now = now
    pi.answers["timedatectl show -p NTPSynchronized"] = Done(0, answer)
    found = pi.check("clock")
    assert found.state == state
    assert words in found.found


def test_a_clock_without_timedatectl_is_judged_by_its_year(pi: Pi) -> None:
    del pi.answers["timedatectl show -p NTPSynchronized"]
    assert pi.check("clock").state == "ok"


@pytest.mark.parametrize(
    ("mib", "state"), [(1024, "ok"), (1023, "warning"), (100, "warning"), (99, "problem")]
)
def test_storage_that_runs_full_is_told_before_it_is(pi: Pi, mib: int, state: str) -> None:
    pi.space = (mib << 20, 30 << 30)
    found = pi.check("storage")
    assert (found.state, found.found) == (
        state,
        f"{mib} of 30720 MiB free for /var/lib/prime-spark",
    )


def test_a_home_on_a_read_only_file_system_is_a_problem(pi: Pi) -> None:
    pi.write("/proc/mounts", "/dev/mmcblk0p2 / ext4 ro,noatime 0 0\nproc /proc proc rw 0 0\n")
    found = pi.check("storage")
    assert found.state == "problem"
    assert found.found.startswith("/ is read-only")
    assert "mount -o remount,rw /`" in found.remedy


def test_a_read_only_root_beside_a_writable_home_is_well(pi: Pi) -> None:
    pi.write(
        "/proc/mounts", "/dev/root / ext4 ro 0 0\n/dev/sda1 /var/lib/prime-spark ext4 rw 0 0\n"
    )
    assert pi.check("storage").state == "ok"


def test_storage_is_judged_without_a_list_of_mounts(pi: Pi) -> None:
    pi.remove("/proc/mounts")
    assert pi.check("storage").state == "ok"


def test_a_file_system_that_fails_is_said(pi: Pi) -> None:
    pi.space = OSError(5, "Input/output error")
    assert pi.check("storage").found == "could not be read: input/output error"


def test_a_home_without_any_parent_is_said(pi: Pi) -> None:
    pi.home = Path("relative/home")
    assert pi.check("storage").state == "unknown"


@pytest.mark.parametrize(
    ("path", "point", "is_read_only"),
    [
        ("/srv/data/a", "/srv/data", False),
        ("/srv/database", "/", True),
        ("/srv/my disk/a", "/srv/my disk", True),
        ("/over", "/over", False),
    ],
)
def test_a_path_belongs_to_the_nearest_mount_and_the_last_one_there(
    path: str, point: str, is_read_only: bool
) -> None:
    mounts = (
        "a / ext4 errors=remount-ro,ro 0 0\nb /srv/data ext4 rw,errors=remount-ro 0 0\n"
        "c /srv/my\\040disk ext4 ro 0 0\nd /over ext4 ro 0 0\ne /over ext4 rw 0 0\nbroken line\n"
    )
    found = mount_of(Path(path), mounts)
    assert found is not None
    assert (found.point, found.is_read_only) == (point, is_read_only)


def test_no_mount_is_found_where_none_is_listed() -> None:
    assert mount_of(Path("/srv"), "") is None


def test_an_unread_answer_is_not_taken_for_an_answer(pi: Pi) -> None:
    pi.answers["vcgencmd get_throttled"] = Unread("exec format error")
    assert pi.check("power").state == "unknown"
