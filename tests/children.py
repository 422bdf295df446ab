"""Child processes for tests that race or kill them: forked, so that they start in milliseconds.

Close what is shared by file (an SQLite store) in the parent before forking.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeVar

Result = TypeVar("Result")

_FORK = multiprocessing.get_context("fork")


def race(count: int, work: Callable[[int], Result]) -> list[Result]:
    """Run `work(number)` in this many processes that begin together; return what each said."""
    barrier = _FORK.Barrier(count)
    results: Any = _FORK.SimpleQueue()

    def child(number: int) -> None:
        barrier.wait(30)
        results.put((number, work(number)))

    children = [_FORK.Process(target=child, args=(number,)) for number in range(count)]
    for process in children:
        process.start()
    found = {}
    for process in children:
        process.join(60)
        assert process.exitcode == 0, f"a child ended with {process.exitcode}"
        number, result = results.get()
        found[number] = result
    return [found[number] for number in range(count)]


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a child and return its process id; it exits with 0, or 1 on an exception."""
    pid = os.fork()
    if pid == 0:
        _work_and_leave(work)
    return pid


@contextmanager
def running(work: Callable[[], object]) -> Iterator[int]:
    """Run `work` in a child for the length of a block; kill it at the end and wait for it."""
    pid = fork(work)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        exit_status(pid)


def die_at_call(number: int, *sources: str) -> None:
    """Have this process kill itself right before its n-th system call made by these sources.

    sources: beginnings of paths of Python files; reads and writes of files count.
    """
    count = 0

    def on_event(frame: FrameType, event: str, function: object) -> None:
        nonlocal count
        if (
            event == "c_call"
            and frame.f_code.co_filename.startswith(sources)
            and (
                getattr(function, "__module__", None) in ("posix", "fcntl")
                or isinstance(getattr(function, "__self__", None), io.IOBase)
            )
        ):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(on_event)


def exit_status(pid: int) -> int:
    """Wait for a child; return its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _work_and_leave(work: Callable[[], object]) -> NoReturn:
    try:
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)
