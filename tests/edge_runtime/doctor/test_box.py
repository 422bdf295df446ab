"""Files and commands of the real machine are read, and nothing of it raises or waits forever."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from edge_runtime.doctor import Box, Done, Unread, commands, this_box

RUN = commands(os.environ)


def box(root: Path) -> Box:
    return Box(root, RUN)


def test_a_text_is_read_without_blanks_and_nuls(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b" Raspberry\xff\n\0")
    assert box(tmp_path).text("/model") == "Raspberry\ufffd"


@pytest.mark.parametrize(
    ("read", "why", "is_absent"),
    [
        (lambda b: b.text("/gone"), "no such file or directory", True),
        (lambda b: b.text("/folder"), "is a directory", False),
        (lambda b: b.names("/gone"), "no such file or directory", True),
        (lambda b: b.names("/file"), "not a directory", True),
        (lambda b: b.link("/file"), "invalid argument", False),
    ],
)
def test_what_cannot_be_read_says_why(
    tmp_path: Path, read: Callable[[Box], object], why: str, is_absent: bool
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert read(box(tmp_path)) == Unread(why, is_absent)


def test_a_link_is_there_even_if_it_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "node").symlink_to("/nowhere/at/all")
    found = box(tmp_path)
    assert found.exists("/node")
    assert found.link("/node") == "/nowhere/at/all"
    assert not found.exists("/other")


def test_a_command_gives_its_output_its_errors_and_its_code() -> None:
    done = RUN([sys.executable, "-c", "import sys; print('a'); sys.stderr.write('b'); sys.exit(3)"])
    assert done == Done(3, "a\n", "b")


def test_a_command_that_is_not_there_is_said() -> None:
    assert RUN(["no-such-command-at-all"]) == Unread("there is no no-such-command-at-all", True)


def test_a_command_that_cannot_be_started_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF broken")
    broken.chmod(0o755)
    found = RUN([str(broken)])
    assert isinstance(found, Unread)
    assert found.why == "exec format error"


def test_commands_are_looked_for_in_sbin_and_the_vendors_library_writes_no_log(
    tmp_path: Path,
) -> None:
    run = commands({"PATH": str(tmp_path)})
    code = "import os; print(os.environ['PATH'], os.environ['HAILORT_LOGGER_PATH'], os.getcwd())"
    done = run([sys.executable, "-c", code])
    assert done == Done(0, f"{tmp_path}:/usr/sbin:/sbin NONE /\n", "")


def test_a_command_that_hangs_is_ended_with_its_children_and_what_it_said_is_kept() -> None:
    began = time.monotonic()
    done = commands(os.environ, limit_s=1.0)(["sh", "-c", "sleep 60 & echo $!; exec sleep 60"])
    assert time.monotonic() - began < 10
    assert isinstance(done, Done)
    assert done.code is None
    assert done.trouble == "no answer in time"
    assert _is_gone(int(done.out))


def test_a_command_that_cannot_even_be_killed_is_left_behind() -> None:
    # Its grandchild left the group and keeps the output open, as a process stuck in a driver does.
    code = "setsid sleep 6 & echo begun; exec sleep 60"
    began = time.monotonic()
    done = commands(os.environ, limit_s=0.5)(["sh", "-c", code])
    assert time.monotonic() - began < 5
    assert done == Done(None, "begun\n", "")


def test_this_machine_is_read_from_its_root() -> None:
    found = this_box(os.environ)
    assert found.path("/etc/os-release") == Path("/etc/os-release")
    free, total = found.space(Path("/"))
    assert 0 < free <= total
    assert found.may_open(Path("/dev/null"))
    assert not found.may_open(Path("/nowhere"))
    assert abs(found.now() - time.time()) < 60


def _is_gone(pid: int) -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False
