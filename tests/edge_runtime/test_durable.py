"""A file is replaced whole or not at all, and what was replaced is on the device."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from edge_runtime import durable
from tests.children import die_at_call, exit_status, fork
from tests.disks import fill, read_only, small_disk


@contextmanager
def system_calls() -> Iterator[list[tuple[str, str]]]:
    """Note what this process asks the system for: (call, file or folder it is about)."""
    made: list[tuple[str, str]] = []

    def on_event(frame: FrameType, event: str, function: object) -> None:
        name = getattr(function, "__name__", "")
        if event == "c_call" and name in ("fsync", "replace", "mkdir"):
            found = frame.f_locals
            about = found.get("descriptor") if name == "fsync" else found.get("self")
            if name == "fsync" and about is None:
                about = found["file"].fileno()
            path = str(Path(f"/proc/self/fd/{about}").readlink()) if name == "fsync" else str(about)
            made.append((name, path))

    sys.setprofile(on_event)
    try:
        yield made
    finally:
        sys.setprofile(None)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_content_is_on_the_device_before_the_file_has_its_name_and_the_name_afterwards(
    tmp_path: Path,
) -> None:
    with system_calls() as made:
        durable.write(tmp_path / "state", b"new")
    staged = str(tmp_path / ".state.new")
    assert made == [("fsync", staged), ("replace", staged), ("fsync", str(tmp_path))]
    assert (tmp_path / "state").read_bytes() == b"new"
    assert names(tmp_path) == {"state"}


def test_each_folder_that_is_made_is_on_the_device_in_the_one_above_it(tmp_path: Path) -> None:
    with system_calls() as made:
        durable.make_folder(tmp_path / "a" / "b")
    assert made == [
        ("mkdir", str(tmp_path / "a")),
        ("fsync", str(tmp_path)),
        ("mkdir", str(tmp_path / "a" / "b")),
        ("fsync", str(tmp_path / "a")),
    ]
    with system_calls() as made:
        durable.make_folder(tmp_path / "a" / "b")
    assert made == []


def test_a_write_killed_at_any_step_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "state"
    found: list[bytes] = []
    for step in range(1, 100):
        path.write_bytes(b"old")

        def work(step: int = step) -> None:
            die_at_call(step, durable.__file__, str(Path(os.__file__).with_name("pathlib")))
            durable.write(path, b"new" * 10_000)

        status = exit_status(fork(work))
        found.append(path.read_bytes())
        if status == 0:
            break
    assert len(found) > 5, "the steps were not counted"
    assert found == sorted(found, reverse=True), "once replaced, it stays"
    assert set(found) == {b"old", b"new" * 10_000}
    durable.write(path, b"after")
    assert names(tmp_path) == {"state"}, "what the dead left is used or gone"


def test_on_a_full_disk_the_old_content_stays_and_nothing_is_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        durable.write(disk / "state", b"old")
        ballast = fill(disk)
        with pytest.raises(OSError, match="No space left"):
            durable.write(disk / "state", bytes(1 << 16))
        assert (disk / "state").read_bytes() == b"old"
        assert names(disk) == {"state", ballast.name}
        ballast.unlink()
        durable.write(disk / "state", bytes(1 << 16))
        assert (disk / "state").stat().st_size == 1 << 16


def test_in_a_folder_that_cannot_be_written_the_old_content_stays(tmp_path: Path) -> None:
    durable.write(tmp_path / "state", b"old")
    with read_only(tmp_path):
        with pytest.raises(OSError, match="Read-only file system"):
            durable.write(tmp_path / "state", b"new")
        assert (tmp_path / "state").read_bytes() == b"old"


def test_a_folder_in_the_file_s_place_is_an_error_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with pytest.raises(IsADirectoryError):
        durable.write(tmp_path / "state", b"new")
    assert names(tmp_path) == {"state"}
