"""SQLite as the embedded stores use it: one file that many processes and threads of a host share.

Readers never wait for a writer (WAL); one writer at a time, and the others queue for up to
`busy_timeout_s`. A commit is on the disk when `write` returns (synchronous FULL). Connections
are lent out one at a time and kept open, so a small read costs tens of microseconds. Processes
that share a file are spawned, or forked before it is opened: SQLite's record of its locks does
not survive a fork (https://sqlite.org/howtocorrupt.html, section 2.6).

The first opening in a process happens under a file lock, because switching a new file to WAL
does not wait for others that do the same. Errors of SQLite are translated in one place:
`Corrupt` for a damaged or foreign file, `Unavailable` for a busy, full or unwritable one.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_runtime.errors import Corrupt, PrimeSparkError, Unavailable

BUSY_TIMEOUT_S: Final = 10.0
RETRY_S: Final = 1.0

_KEPT_OPEN: Final = 8
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_UNUSABLE: Final = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)


@dataclass(frozen=True, slots=True)
class Schema:
    """What a file has to hold. name: as users call it; version: `PRAGMA user_version`.

    application_id: a number of ours in the file's header, so that a foreign file is noticed.
    """

    name: str
    application_id: int
    version: int
    statements: tuple[str, ...]


class Database:
    """One SQLite file, created when it is first used. Safe to use from threads."""

    def __init__(
        self, path: Path, schema: Schema, *, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> None:
        self._path = path
        self._schema = schema
        self._busy_timeout_s = busy_timeout_s
        self._idle: list[sqlite3.Connection] = []
        self._opening = threading.Lock()
        self._is_open = False
        self._opened_by: int | None = None

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection whose statements all see the same state."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Lend the one writing connection; commit at the end, undo everything on an error."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def close(self) -> None:
        """Close what is not in use; the next call opens again."""
        if self._opened_by == os.getpid():
            # Another thread may borrow the last one between a look and a pop.
            with suppress(IndexError):
                while True:
                    self._idle.pop().close()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._borrow()
            try:
                connection.execute(begin)
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error:
                connection.close()
                raise
            except BaseException:
                connection.rollback()
                self._give_back(connection)
                raise
            self._give_back(connection)
        except sqlite3.Error as error:
            found = _translate(error, self._schema.name, self._path)
            if found is None:
                raise
            raise found from error
        except UnicodeDecodeError as error:
            # Damaged text reached an error message of SQLite before it could be raised.
            raise _damaged(self._schema.name, self._path, error) from error

    def _borrow(self) -> sqlite3.Connection:
        if self._opened_by not in (None, os.getpid()):
            raise RuntimeError(f"{self._path} was opened before a fork; open it in the child")
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if len(self._idle) < _KEPT_OPEN:
            self._idle.append(connection)
        else:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._is_open:
            return self._connect()
        with self._opening:
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = os.open(_lock_path(self._path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise unusable(self._schema.name, self._path, error) from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                connection = self._connect()
                self._prepare(connection)
            finally:
                os.close(lock)
            self._is_open, self._opened_by = True, os.getpid()
            return connection

    def _connect(self) -> sqlite3.Connection:
        try:
            # Only where it is not there: closing any descriptor of a file drops all locks that this
            # process has on it, and another one, taking itself for the last, removes the log.
            # (sqlite.org/howtocorrupt.html, 2.2)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise unusable(self._schema.name, self._path, error) from error
        connection = sqlite3.connect(
            self._path,
            timeout=self._busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        try:
            self._check_or_create(connection)
        except BaseException:
            connection.close()
            raise

    def _check_or_create(self, connection: sqlite3.Connection) -> None:
        schema = self._schema
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if found == 0 and owner == 0 and tables == 0:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            for statement in schema.statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {schema.application_id}")
            connection.execute(f"PRAGMA user_version = {schema.version}")
            connection.execute("COMMIT")
            return
        if owner != schema.application_id:
            raise Corrupt(f"{self._path} is not {schema.name}")
        if found != schema.version:
            raise Unavailable(
                f"{self._path} has version {found} of the format of {schema.name}; "
                f"this program knows version {schema.version}",
                hint="use the release that wrote it, or a newer one",
            )


def unusable(name: str, path: Path, error: OSError) -> Unavailable:
    """Return the error for a store whose files cannot be read or written."""
    return Unavailable(
        f"{name} cannot be used: {error.strerror or error} ({path})",
        hint="is the disk full, or the folder not writable for this user?",
    )


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _translate(error: sqlite3.Error, name: str, path: Path) -> PrimeSparkError | None:
    """Return the error of ours; None for a mistake in our own code."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # The module itself raises this one, for text that is not UTF-8.
        is_damaged = isinstance(error, sqlite3.OperationalError)
        return _damaged(name, path, error) if is_damaged else None
    primary = code & 0xFF
    # SQLITE_ERROR: our statements are fixed and the schema's version was checked, so a table or
    # column that is not there was damaged in the file.
    if primary in _DAMAGED or code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_IOERR_CORRUPTFS):
        return _damaged(name, path, error)
    if primary in _BUSY:
        return Unavailable(f"{name} is busy: others are writing ({path})", retry_after_s=RETRY_S)
    if primary in _UNUSABLE:
        return Unavailable(
            f"{name} cannot be used: {error} ({path})",
            hint="is the disk full, or the folder not writable for this user?",
        )
    return None


def _damaged(name: str, path: Path, error: Exception) -> Corrupt:
    return Corrupt(f"{name} is damaged: {error} ({path})", hint="restore the file from a backup")
