"""kill -9 of a registration, at every step and in the middle of large files."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
from pathlib import Path
from types import FrameType

import pytest

import cluster
from cluster.registry import EmbeddedRegistry
from tests.children import exit_status, fork, running
from tests.contract.registries import file_with, register

_WATCHED = (str(Path(cluster.__file__).parent), str(Path(os.__file__).with_name("pathlib")))


def _kill_at_call(number: int) -> None:
    """Have this process kill itself right before our code's n-th system call or SQL statement."""
    count = 0

    def on_event(frame: FrameType, event: str, function: object) -> None:
        nonlocal count
        if (
            event == "c_call"
            and frame.f_code.co_filename.startswith(_WATCHED)
            and (
                getattr(function, "__module__", None) in ("posix", "fcntl")
                or isinstance(getattr(function, "__self__", None), sqlite3.Connection)
            )
        ):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(on_event)


def _survives(root: Path, source: Path, before: tuple[str, ...], *, ended: bool) -> bool:
    """Check what a killed registration of version `new` left; tell whether it had committed."""
    registry = EmbeddedRegistry(root)
    versions = tuple(found.version for found in registry.versions("digits"))
    is_visible = versions == (*before, "new")
    assert is_visible or versions == before
    assert is_visible or not ended
    events = registry.history("digits")
    assert [event.version for event in events] == list(versions)
    assert registry.serving_generation() == len(versions)
    if is_visible:
        registry.sweep()
    else:
        # With other content, so that what the dead one published would be seen to stay.
        source = file_with(source.parent, b"again", "again.onnx")
        register(registry, source, version="new")
    assert registry.sweep() == 0
    found = registry.get("digits", "new")
    path = registry.artifact_path(found.artifacts[0], verify=True)
    assert path.read_bytes() == source.read_bytes()
    staged = list((root / "staging").iterdir())
    assert staged == []
    needed = {a.digest for v in registry.versions("digits") for a in v.artifacts}
    assert {p.name for p in (root / "objects").rglob("*") if p.is_file()} == needed
    registry.close()
    return is_visible


@pytest.mark.parametrize("before", [(), ("old",)], ids=["empty home", "a version is there"])
def test_a_registration_killed_at_any_step_is_there_whole_or_not_at_all(
    tmp_path: Path, before: tuple[str, ...]
) -> None:
    source = file_with(tmp_path, b"weights" * 1000)
    visible: list[bool] = []
    for step in range(1, 10_000):
        root = tmp_path / f"registry-{step}"
        for version in before:
            registry = EmbeddedRegistry(root)
            register(registry, file_with(tmp_path, b"old", "old.onnx"), version=version)
            registry.close()

        def work(root: Path = root, step: int = step) -> None:
            _kill_at_call(step)
            register(EmbeddedRegistry(root), source, version="new")

        status = exit_status(fork(work))
        assert status in (0, -signal.SIGKILL)
        visible.append(_survives(root, source, before, ended=status == 0))
        if status == 0:
            break
    else:
        pytest.fail("the registration never came to its end")
    assert len(visible) > 30, "the steps were not counted"
    assert visible == sorted(visible), "once committed, it stays"
    assert not visible[0]


@pytest.mark.parametrize("seed", range(6))
def test_a_registration_killed_while_it_copies_a_large_file_leaves_nothing(
    tmp_path: Path, seed: int
) -> None:
    root, size = tmp_path / "registry", 24 << 20
    source = file_with(tmp_path, random.Random(seed).randbytes(size))
    until = random.Random(seed).randrange(size + 1)
    with running(lambda: register(EmbeddedRegistry(root), source, version="new")):
        while not _files(root / "objects"):
            if max(map(_size, _files(root / "staging")), default=0) >= until:
                break
    _survives(root, source, (), ended=False)


def test_a_running_registration_is_not_swept(tmp_path: Path) -> None:
    root, source = tmp_path / "registry", file_with(tmp_path, b"weights")
    reading, writing = os.pipe()

    def work() -> None:
        registry = EmbeddedRegistry(root)
        with registry._objects.staging() as folder:
            registry._objects.stage(folder, source)
            os.write(writing, b"staged")
            signal.pause()

    with running(work):
        assert os.read(reading, 6) == b"staged"
        registry = EmbeddedRegistry(root)
        register(registry, source)
        assert registry.sweep() == 0
        assert len(_files(root / "staging")) == 1
    assert registry.sweep() == 1
    assert _files(root / "staging") == []
    os.close(reading)
    os.close(writing)


def _files(folder: Path) -> list[Path]:
    """Return the files below a folder that others are changing."""
    return [Path(at) / name for at, _, names in os.walk(folder) for name in names]


def _size(path: Path) -> int:
    """Return a file's size; 0 when it has just been moved away."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
