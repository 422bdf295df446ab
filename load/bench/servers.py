"""A server under test as a whole: started, timed, paused, measured and ended with its children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import psutil

START_TIMEOUT_S: Final = 180.0
STOP_TIMEOUT_S: Final = 60.0
PROBE_EVERY_S: Final = 0.02


class DidNotStart(Exception):
    """A server ended, or never answered; the message says where its log is."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a server. stop: a command that ends it in its own way, if it has one."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    stop: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Of the whole process tree. pss_bytes: shared pages counted once; cpu_s: since the start."""

    pss_bytes: int
    cpu_s: float
    processes: int


class Server:
    """One running server; `stop` must be called."""

    def __init__(self, launch: Launch, log: Path) -> None:
        self.launch = launch
        self._log_path = log
        self._log: IO[bytes] = log.open("ab")
        self._env = {**os.environ, **launch.env}
        self._began = time.perf_counter()
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "load.bench.keeper", *launch.command],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def wait_until(self, is_ready: Callable[[], bool]) -> float:
        """Return the seconds from process start to the first answer. Raises DidNotStart."""
        while time.perf_counter() - self._began < START_TIMEOUT_S:
            if self._keeper.poll() is not None:
                raise DidNotStart(f"{self.launch.name} ended; see {self._log_path}")
            if is_ready():
                return time.perf_counter() - self._began
            time.sleep(PROBE_EVERY_S)
        self.stop()
        raise DidNotStart(f"{self.launch.name} never answered; see {self._log_path}")

    def pause(self) -> None:
        """Stop every process of the server, so that it takes no processor time."""
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)

    def usage(self) -> Usage:
        pss, cpu_s, count = 0, 0.0, 0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                pss += process.memory_full_info().pss
                times = process.cpu_times()
                cpu_s += times.user + times.system
                count += 1
        return Usage(pss, cpu_s, count)

    def cpu_s(self) -> float:
        """Return the processor time that the living processes have taken."""
        total = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def stop(self) -> None:
        """End the server and everything it started."""
        self.resume()
        if self.launch.stop is not None and self._keeper.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    self.launch.stop,
                    env=self._env,
                    stdout=self._log,
                    stderr=self._log,
                    timeout=STOP_TIMEOUT_S,
                    check=False,
                )
        self._keeper.terminate()
        self._keeper.wait(STOP_TIMEOUT_S)
        self._log.close()

    def _tree(self) -> Iterator[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            yield from psutil.Process(self._keeper.pid).children(recursive=True)
