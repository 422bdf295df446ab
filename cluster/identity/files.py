"""Secrets as files: written whole or not at all, and used only while nobody else can read them."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.errors import NotFound, Unavailable


def create_secret(path: Path, content: bytes) -> bool:
    """Create a file of mode 0600 with this content; False when it is there already.

    Of many processes that try, one creates it, and no one ever sees a part of it: the content
    is made durable under another name, and the link fails where the name is taken.
    """
    with _storing(path), _written_aside(path, content, 0o600) as aside:
        try:
            path.hardlink_to(aside)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
        return True


def replace_public(path: Path, content: bytes) -> None:
    """Write a file that others may read, replacing the old one in one step."""
    with _storing(path), _written_aside(path, content, 0o644) as aside:
        aside.rename(path)
        _sync_folder(path.parent)


def read_secret(path: Path) -> bytes:
    """Return a secret's content. Raises NotFound, and Unavailable when others could read it."""
    with _storing(path):
        try:
            opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"{path} is not there", hint="`prime-spark up` creates it") from None
        with os.fdopen(opened, "rb") as file:
            found = os.fstat(opened)
            if not stat.S_ISREG(found.st_mode):
                raise Unavailable(f"{path} is not a file")
            if found.st_uid not in (0, os.geteuid()) or stat.S_IMODE(found.st_mode) & 0o077:
                raise Unavailable(
                    f"{path} can be read or written by others, so it is not used",
                    hint=f"if nobody had it, `chmod 600 {path}`; else remove it, and `prime-spark "
                    "up` makes a new one",
                )
            return file.read()


@contextmanager
def _written_aside(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    opened = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(opened, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(opened, mode)
            os.fsync(opened)
        yield aside
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be used: {error.strerror or error}",
            hint="is the disk full, or the folder not writable for this user?",
        ) from error


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
