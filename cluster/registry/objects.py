"""Artifacts as files named by their content: `objects/sha256/ab/<digest>`, read-only.

A registration copies its files into a folder of its own below `staging`, makes them durable
(fsync), and moves them to their place by rename, so an object is there whole or not at all.
The folder is held by a lock (flock on the folder itself), which the kernel drops when the
process dies however it dies; what a dead registration left is found by that and removed.

Publishing and removing unreferenced objects both happen while the caller holds the store's
write lock, so an object is never removed between its publication and the row that names it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.database import unusable
from edge_runtime.errors import Corrupt, InvalidInput, Unavailable

_CHUNK_BYTES: Final = 1 << 20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = "the registry's object store"


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A durable copy that is not visible yet. digest: SHA-256 in hex of the bytes copied."""

    path: Path
    digest: str
    size_bytes: int


class ObjectStore:
    """The files of one registry. Raises Unavailable when its own folders cannot be used."""

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects" / "sha256"
        self._staging = root / "staging"

    @property
    def is_empty(self) -> bool:
        """True as long as nothing was ever published."""
        return not self._objects.exists()

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Make a folder that belongs to this registration; it is gone afterwards."""
        folder, lock = self._own_folder()
        try:
            yield folder
        finally:
            try:
                with _storing(folder):
                    _remove_folder(folder)
            finally:
                os.close(lock)

    def stage(self, folder: Path, source: Path) -> StagedFile:
        """Copy a file into the folder and make it durable.

        Raises InvalidInput when the source is not a regular file with content.
        """
        copy = folder / secrets.token_hex(8)
        reading = _open_source(source)
        try:
            with _storing(copy):
                writing = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
            try:
                digest, size = _copy(reading, writing, source, copy)
                with _storing(copy):
                    os.fchmod(writing, 0o444)
                    os.fsync(writing)
            finally:
                os.close(writing)
        finally:
            os.close(reading)
        if size == 0:
            raise InvalidInput(f"the artifact {source} is empty", field="artifacts.path")
        return StagedFile(copy, digest, size)

    def publish(self, staged: StagedFile) -> None:
        """Make a staged file visible, for good. A damaged object of the same name is replaced."""
        place = self._place(staged.digest)
        with _storing(place):
            _make_folder(place.parent)
            staged.path.rename(place)
            _sync_folder(place.parent)

    def path(self, digest: str, size_bytes: int) -> Path:
        """Return the file of an object. Raises Corrupt when it is missing or has another size."""
        place = self._place(digest)
        try:
            found = place.stat()
        except FileNotFoundError:
            raise Corrupt(
                f"the artifact {digest} is missing from the registry",
                hint="restore it from a backup, or register the same file again",
                details={"digest": digest},
            ) from None
        except OSError as error:
            raise unusable(_NAME, place, error) from error
        if not stat.S_ISREG(found.st_mode) or found.st_size != size_bytes:
            raise _damaged(digest)
        return place

    def verify(self, digest: str, size_bytes: int) -> Path:
        """Like `path`, and read the whole file. Raises Corrupt when the digest is another one."""
        place = self.path(digest, size_bytes)
        with _storing(place), place.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise _damaged(digest)
        return place

    def abandoned(self) -> list[tuple[Path, int]]:
        """Return the staging folders of dead registrations, each with the lock now held on it."""
        found: list[tuple[Path, int]] = []
        if not self._staging.exists():
            return found
        with _storing(self._staging):
            for folder in sorted(self._staging.iterdir()):
                lock = _lock_folder(folder)
                if lock is not None:
                    found.append((folder, lock))
        return found

    def remove_folder(self, folder: Path) -> None:
        """Remove an abandoned staging folder with all it holds."""
        with _storing(folder):
            _remove_folder(folder)

    def remove_unreferenced(self, referenced: Collection[str]) -> int:
        """Remove every object that is not referenced; return how many. Hold the write lock."""
        count = 0
        if self.is_empty:
            return count
        with _storing(self._objects):
            for place in sorted(self._objects.glob("*/*")):
                if place.name not in referenced:
                    place.unlink(missing_ok=True)
                    count += 1
        return count

    def _own_folder(self) -> tuple[Path, int]:
        with _storing(self._staging):
            _make_folder(self._staging)
            while True:
                folder = self._staging / secrets.token_hex(8)
                folder.mkdir(mode=0o700)
                lock = _lock_folder(folder)
                # A sweeper may be faster than the lock; then this folder is its prey.
                if lock is not None:
                    return folder, lock

    def _place(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise InvalidInput(f"{digest[:80]!r} is not a SHA-256 digest", field="digest")
        return self._objects / digest[:2] / digest


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    """Translate what the file system says about the store's own files."""
    try:
        yield
    except OSError as error:
        raise unusable(_NAME, path, error) from error


def _open_source(source: Path) -> int:
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its other end.
        reading = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"the artifact {source} cannot be read: {getattr(error, 'strerror', error)}",
            field="artifacts.path",
        ) from None
    if not stat.S_ISREG(os.fstat(reading).st_mode):
        os.close(reading)
        raise InvalidInput(f"the artifact {source} is not a file", field="artifacts.path")
    return reading


def _copy(reading: int, writing: int, source: Path, copy: Path) -> tuple[str, int]:
    checksum, size = hashlib.sha256(), 0
    while True:
        try:
            chunk = os.read(reading, _CHUNK_BYTES)
        except OSError as error:
            raise Unavailable(f"reading {source} failed: {error.strerror}") from error
        if not chunk:
            return checksum.hexdigest(), size
        checksum.update(chunk)
        size += len(chunk)
        left = memoryview(chunk)
        with _storing(copy):
            while left:
                left = left[os.write(writing, left) :]


def _lock_folder(folder: Path) -> int | None:
    """Lock a folder; None when another process holds it or removed it."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.exists():
            return lock
    except BlockingIOError:
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _remove_folder(folder: Path) -> None:
    for leftover in folder.iterdir():
        leftover.unlink()
    folder.rmdir()


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents so that they survive a power cut."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _damaged(digest: str) -> Corrupt:
    return Corrupt(
        f"the artifact {digest} is not what was registered",
        hint="restore it from a backup, or register the same file again",
        details={"digest": digest},
    )
