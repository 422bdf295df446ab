"""An event loop whose time passes only when nothing is left to do: hours of it in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Selector(selectors.DefaultSelector):
    """Never waits; passes the time instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for something that never comes"
            self.now += max(0.0, timeout)
        return ready


class _Inline(ThreadPoolExecutor):
    """Runs what it is given at once, so that no time passes meanwhile."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class VirtualLoop(asyncio.SelectorEventLoop):
    """Raises in `finish` what a callback raised, and fails when a task is left."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)
        self.set_default_executor(_Inline())
        self.set_exception_handler(self._note)
        self.errors: list[Mapping[str, Any]] = []

    def time(self) -> float:
        return self._clock.now

    def hold_up(self, seconds: float) -> None:
        """Let time pass in which this process does nothing at all."""
        self._clock.now += seconds

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.run_until_complete(work)

    def live(self, seconds: float) -> None:
        """Run whatever is due in so many seconds."""
        self.run(asyncio.sleep(seconds))

    def live_until(self, condition: Callable[[], bool], at_most_s: float, step_s: float) -> None:
        """Run until something holds. Fails when it does not in time."""
        until = self.time() + at_most_s
        while not condition():
            assert self.time() < until, f"not within {at_most_s} s"
            self.live(step_s)

    def finish(self) -> None:
        self.live(0.0)
        left = asyncio.all_tasks(self)
        self.close()
        assert not left
        assert not self.errors, self.errors

    def _note(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        self.errors.append(context)
