"""The processes that belong to a home, found by what cannot be lost, ended by their ids.

Everything is started as the leader of a session of its own, with `PRIME_SPARK_CLUSTER` in its
environment. A process belongs to the home when it carries that mark, or when it is in the
session of one that does or that was recorded: Ray's workers overwrite their environment, and
orphans lose their parent, but no process changes its session unasked. So nothing is ever
looked for by name, and what somebody else started is never touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from cluster.home import Home

MARK: Final = "PRIME_SPARK_CLUSTER"
PART: Final = "PRIME_SPARK_NODE"
KILL_TIMEOUT_S: Final = 10.0
_CLOCK_SLACK_S: Final = 2.0
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Session:
    """A started part: its session id and when it began (unix seconds)."""

    part: str
    sid: int
    started_at: float


def mark_of(home: Home) -> str:
    """Return the mark of a home's processes."""
    return hashlib.sha256(os.fsencode(home.root)).hexdigest()[:16]


def start(
    home: Home,
    part: str,
    command: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    *,
    pipe: bool = False,
) -> tuple[subprocess.Popen[bytes], Session]:
    """Start a command as a part of the home's cluster.

    Its output goes to log; with pipe, its standard output comes back to the caller instead.
    """
    marked = {**env, MARK: mark_of(home), PART: part}
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env=marked,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipe else output,
            stderr=output,
            start_new_session=True,
            cwd=home.root,
        )
    return child, Session(part, child.pid, time.time())


def belonging(home: Home, recorded: Iterable[Session] = ()) -> dict[str, list[psutil.Process]]:
    """Return the home's processes by part, without this one and its parents."""
    mark = mark_of(home)
    own = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    known = {session.sid: session for session in recorded}
    everything: list[tuple[psutil.Process, int]] = []
    parts: dict[int, str] = {}
    for process in psutil.process_iter():
        sid = _session_of(process.pid)
        if sid is None or process.pid in own:
            continue
        everything.append((process, sid))
        environment = _environment(process)
        if environment.get(MARK) == mark:
            parts.setdefault(sid, environment.get(PART, "other"))
    own_sid = os.getsid(0)
    found: dict[str, list[psutil.Process]] = {}
    for process, sid in everything:
        part = parts.get(sid) if sid != own_sid else None
        session = known.get(sid)
        if part is None and session is not None and _began_after(process, session):
            part = session.part
        if part is not None and is_running(process):
            found.setdefault(part, []).append(process)
    return found


def end(
    processes: Sequence[psutil.Process], grace_s: float, ask: signal.Signals = signal.SIGTERM
) -> None:
    """Ask processes to end, wait, and kill those that did not. Returns when all are gone."""
    for process in processes:
        _signal(process, ask)
    kill(_wait(processes, grace_s))


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kill processes at once and wait until the kernel has let go of them."""
    for process in processes:
        _signal(process, signal.SIGKILL)
    _wait(processes, KILL_TIMEOUT_S)


def _wait(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until processes have ended, reaped or not; return those that have not."""
    until = time.monotonic() + timeout_s
    left = [process for process in processes if is_running(process)]
    while left and time.monotonic() < until:
        time.sleep(_POLL_S)
        left = [process for process in left if is_running(process)]
    return left


def is_running(process: psutil.Process) -> bool:
    """Tell whether a process still runs; one that only waits to be reaped does not."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)  # psutil checks that the id was not given to another process


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _environment(process: psutil.Process) -> Mapping[str, str]:
    try:
        environment: Mapping[str, str] = process.environ()
    except (psutil.Error, OSError):
        return {}
    return environment


def _began_after(process: psutil.Process, session: Session) -> bool:
    try:
        return bool(process.create_time() >= session.started_at - _CLOCK_SLACK_S)
    except psutil.NoSuchProcess:
        return False
