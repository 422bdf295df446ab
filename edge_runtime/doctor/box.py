"""The one way to the machine: files below a root, and commands.

Everything that the doctor knows comes through a `Box`, so a test gives it a folder that looks like
a Raspberry Pi and commands that answer as the vendor's would. Reading never raises: what cannot be
read is an `Unread` that says why.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COMMAND_S: Final = 20.0  # importing onnxruntime from a cold SD card takes several
_MAX_TEXT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Unread:
    """Something that could not be read. is_absent: because it is not there."""

    why: str
    is_absent: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """A command that was started. code: below 0 for a signal, None when it did not end in time."""

    code: int | None
    out: str
    err: str = ""

    @property
    def trouble(self) -> str:
        """Return how it ended badly and its last words; empty after a good end."""
        if self.code == 0:
            return ""
        if self.code is None:
            return "no answer in time"
        if self.code < 0:
            return f"killed by {_signal_name(-self.code)}"
        words = (self.err.strip() or self.out.strip()).splitlines()
        return words[-1].strip() if words else f"ended with {self.code}"


Run = Callable[[Sequence[str]], Done | Unread]


def _may_open(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK)


def _space(path: Path) -> tuple[int, int]:
    usage = shutil.disk_usage(path)
    return usage.free, usage.total


@dataclass(frozen=True, slots=True)
class Box:
    """The machine that is examined.

    root: `/`; run: runs a command (see `commands`); now: the clock, in seconds since 1970;
    may_open: whether this user may read and write a file; space: free and total bytes of the file
    system that a path is in, may raise OSError.
    """

    root: Path
    run: Run
    now: Callable[[], float] = time.time
    may_open: Callable[[Path], bool] = _may_open
    space: Callable[[Path], tuple[int, int]] = _space

    def path(self, absolute: str) -> Path:
        """Return where a path of the machine really is."""
        return self.root / absolute.lstrip("/")

    def exists(self, absolute: str) -> bool:
        """Whether there is such a file, folder or device."""
        return os.path.lexists(self.path(absolute))

    def text(self, absolute: str) -> str | Unread:
        """Return a text file, without blanks and NULs at its ends."""
        try:
            with self.path(absolute).open("rb") as file:
                content = file.read(_MAX_TEXT_BYTES)
        except OSError as error:
            return _unread(error)
        return content.decode("utf-8", "replace").strip(" \t\r\n\0")

    def names(self, absolute: str) -> list[str] | Unread:
        """Return the names in a folder, sorted."""
        try:
            return sorted(entry.name for entry in self.path(absolute).iterdir())
        except OSError as error:
            return _unread(error)

    def link(self, absolute: str) -> str | Unread:
        """Return where a symbolic link points."""
        try:
            return str(self.path(absolute).readlink())
        except OSError as error:
            return _unread(error)


def this_box(environ: Mapping[str, str]) -> Box:
    """Return the machine that this process runs on."""
    return Box(Path("/"), commands(environ))


def commands(environ: Mapping[str, str], limit_s: float = COMMAND_S) -> Run:
    """Return a runner of commands that gives each so many seconds."""
    path = environ.get("PATH") or os.defpath
    # modinfo is in sbin, which Debian leaves out of users' PATH; the library writes its log into
    # the working folder unless told not to.
    environment = {
        **environ,
        "PATH": f"{path}:/usr/sbin:/sbin",
        "LC_ALL": "C.UTF-8",
        "HAILORT_LOGGER_PATH": "NONE",
    }

    def run(command: Sequence[str]) -> Done | Unread:
        # Looked up here, because Popen would take the PATH of this process.
        program = shutil.which(command[0], path=environment["PATH"])
        if program is None:
            return Unread(f"there is no {command[0]}", is_absent=True)
        try:
            process = subprocess.Popen(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return _unread(error)
        return _finish(process, limit_s)

    return run


def _finish(process: subprocess.Popen[bytes], limit_s: float) -> Done:
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired as expired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = expired.stdout or b"", expired.stderr or b""
        # A process that is stuck in a driver does not even die: it is left behind.
        with contextlib.suppress(subprocess.TimeoutExpired):
            out, err = process.communicate(timeout=1.0)
        return Done(None, _decode(out), _decode(err))
    return Done(process.returncode, _decode(out), _decode(err))


def _decode(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _unread(error: OSError) -> Unread:
    why = (error.strerror or str(error)).lower()
    return Unread(why, isinstance(error, FileNotFoundError | NotADirectoryError))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
