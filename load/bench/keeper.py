"""Keeps a server and everything it starts in one process tree: `python -m load.bench.keeper CMD`.

As a "child subreaper" (prctl(2)) the keeper inherits every descendant whose parent ends,
daemons too, so the benchmark can measure, pause and end a server as a whole. It ends when its
own parent does, when it is told to (SIGTERM), or when the command fails; nothing stays behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import Final

import psutil

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER: Final = 36
_GRACE_S: Final = 15.0
_WAKE_S: Final = 0.5


def main(command: list[str]) -> int:
    """Run the command and stay until told to end it; the command's status when it failed."""
    watched = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    first = subprocess.Popen(
        command,
        start_new_session=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, watched),
    )
    status = 0
    while status == 0 and _is_kept(first):
        told = signal.sigtimedwait(watched, _WAKE_S)
        if told is not None and told.si_signo != signal.SIGCHLD:
            break
        status = first.poll() or 0
        _reap(first)
    end_tree(_descendants())
    return 1 if status else 0


def end_tree(processes: list[psutil.Process]) -> None:
    """End processes: ask, wait, then kill whatever is left and what that started meanwhile."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)
            process.terminate()
    deadline = time.monotonic() + _GRACE_S
    while time.monotonic() < deadline and _descendants():
        _reap(None)
        time.sleep(0.05)
    while left := _descendants():
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        _reap(None)
        time.sleep(0.05)
    _reap(None)


def _is_kept(first: subprocess.Popen[bytes]) -> bool:
    return first.poll() is None or bool(_descendants())


def _descendants() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _reap(first: subprocess.Popen[bytes] | None) -> None:
    """Collect ended orphans; the command's own status is left to `poll`."""
    own = None if first is None or first.returncode is not None else first.pid
    for process in psutil.Process().children():
        if process.pid != own:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
