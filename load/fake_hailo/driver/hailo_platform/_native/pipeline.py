"""The queue between the caller and the chip, with the two threads that work it off.

One thread computes, the other calls the caller's callbacks, in order. An error ends the
pipeline: the job gets that status, those behind it are aborted, later calls are refused, until
the device is opened anew. Outputs are copied to the caller's arrays when a job ends, also when
it failed, and also when nobody waits for it any more.
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chip import Chip, FrameFailed
from .enums import HailoSchedulingAlgorithm
from .network import Bytes, Network
from .statuses import Status, failed

# What the outputs of a failed job hold; load/fake_hailo/device.py names it for tests.
MARKER = 0xA5

Array = NDArray[Any]
Buffers = Mapping[str, "Array | None"]


class Job:
    """Frames that were submitted together; status is meaningful once it is done."""

    def __init__(
        self, frames: Sequence[tuple[Buffers, Buffers]], callback: Callable[[int], None]
    ) -> None:
        self.frames = frames
        self.callback = callback
        self.status = int(Status.UNINITIALIZED)
        self.is_done = threading.Event()
        self.is_called_back = threading.Event()

    def wait(self, seconds: float) -> None:
        """Wait for the job, then as long again for its callback; raise how it ended."""
        if not self.is_done.wait(seconds):
            raise failed(Status.TIMEOUT)
        if self.status:
            raise failed(self.status)
        if not self.is_called_back.wait(seconds):
            raise failed(Status.TIMEOUT)


class Pipeline:
    """A configured network."""

    def __init__(self, chip: Chip, network: Network) -> None:
        self._chip = chip
        self._network = network
        self._size = chip.folder.orders().queue_size
        self._jobs: deque[Job] = deque()
        self._frames = 0
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._finished: deque[Job | None] = deque()
        self._has_finished = threading.Semaphore(0)
        self._callback_thread: int | None = None
        self._callbacks_over = threading.Event()
        self._is_closed = False
        self._worker = threading.Thread(target=self._work, name="hailo-worker", daemon=True)
        self._worker.start()
        chip.pipelines.append(self)
        _OPEN.add(self)

    @property
    def queue_size(self) -> int:
        """Frames that may be under way at once."""
        return self._size

    def activate(self) -> None:
        """Load the network into the chip; refused where a scheduler does that."""
        self._require_scheduling(wanted=False)
        if self._chip.active not in (None, self):
            raise failed(Status.INVALID_OPERATION)
        self._chip.active = self

    def deactivate(self) -> None:
        """Take the network out again."""
        self._require_scheduling(wanted=False)
        if self._chip.active is not self:
            raise failed(Status.NETWORK_GROUP_NOT_ACTIVATED)
        self._chip.active = None

    def require_scheduler(self) -> None:
        """Refuse a call that means nothing without a scheduler."""
        self._require_scheduling(wanted=True)

    def wait_until_ready(self, seconds: float, frames: int) -> None:
        """Wait for room for so many frames; for more than the queue holds that is in vain."""

        def has_room() -> bool:
            return bool(self._failure()) or self._frames + frames <= self._size

        with self._changed:
            if not self._changed.wait_for(has_room, seconds):
                raise failed(Status.TIMEOUT)
            if self._failure():
                raise failed(self._failure())

    def submit(
        self, frames: Sequence[tuple[Buffers, Buffers]], callback: Callable[[int], None]
    ) -> Job:
        """Queue a job; refused when the pipeline is down, buffers do not fit, or it is full."""
        with self._changed:
            self._check(frames)
            job = Job(frames, callback)
            if self._callback_thread is None:
                self._callback_thread = _thread.start_new_thread(self._call_back, ())
            self._jobs.append(job)
            self._frames += len(frames)
            self._changed.notify_all()
        return job

    def shut_down(self) -> None:
        """Abort what is under way; when this returns nothing writes to the caller's arrays."""
        if self._chip.owner != os.getpid():
            return  # a forked child has a copy of this object, but not its threads
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._worker.join()
        if self._chip.active is self:
            self._chip.active = None

    def close(self) -> None:
        """Shut down, and wait for the last callback to return, however long that takes."""
        if self._is_closed or self._chip.owner != os.getpid():
            return
        self._is_closed = True
        self.shut_down()
        if self._callback_thread is None:
            return
        if self._callback_thread == _thread.get_ident():
            _terminate("a callback destroyed the pipeline that called it")
        self._finished.append(None)
        self._has_finished.release()
        self._callbacks_over.wait()

    def _failure(self) -> int:
        if self._stop.is_set():
            return self._chip.broken or Status.STREAM_ABORT
        return self._chip.broken

    def _require_scheduling(self, *, wanted: bool) -> None:
        is_none = self._chip.params.scheduling_algorithm == HailoSchedulingAlgorithm.NONE
        if is_none == wanted:
            raise failed(Status.INVALID_OPERATION)

    def _check(self, frames: Sequence[tuple[Buffers, Buffers]]) -> None:
        if self._failure():
            raise failed(self._failure())
        is_scheduled = self._chip.params.scheduling_algorithm != HailoSchedulingAlgorithm.NONE
        if not is_scheduled and self._chip.active is not self:
            raise failed(Status.NETWORK_GROUP_NOT_ACTIVATED)
        if not frames:
            raise failed(Status.INVALID_ARGUMENT)
        for inputs, outputs in frames:
            for ports, buffers in (
                (self._network.inputs, inputs),
                (self._network.outputs, outputs),
            ):
                for name, port in ports.items():
                    buffer = buffers[name]
                    if buffer is None or buffer.nbytes != port.frame_bytes:
                        raise failed(Status.INVALID_OPERATION)
        refusal = self._chip.refusal(self._frames + len(frames) - 1)
        if refusal:
            raise failed(refusal)
        if self._frames + len(frames) > self._size:
            raise failed(Status.QUEUE_IS_FULL)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._jobs) or self._stop.is_set())
                if not self._jobs:
                    return
                job = self._jobs[0]
            status = self._run(job)
            with self._changed:
                if not self._stop.is_set():  # closing one network breaks no other
                    self._chip.break_down(status)
                self._jobs.popleft()
                self._frames -= len(job.frames)
                self._changed.notify_all()
            job.status = status
            job.is_done.set()
            self._finished.append(job)
            self._has_finished.release()

    def _run(self, job: Job) -> int:
        results: list[dict[str, Bytes]] = []
        status = int(Status.STREAM_ABORT if self._failure() else Status.SUCCESS)
        try:
            if not status:
                for index, (inputs, _) in enumerate(job.frames):
                    frame = {name: _bytes_of(inputs[name]) for name in self._network.inputs}
                    results.append(
                        self._chip.compute(self._network, frame, self._stop, is_first=index == 0)
                    )
        except FrameFailed as error:
            status = int(error.status)
        except Exception:
            traceback.print_exc()
            status = int(Status.INTERNAL_FAILURE)
        for index, (_, outputs) in enumerate(job.frames):
            for name in self._network.outputs:
                _bytes_of(outputs[name])[:] = MARKER if status else results[index][name]
        return status

    def _call_back(self) -> None:
        while True:
            self._has_finished.acquire()
            job = self._finished.popleft()
            if job is None:
                self._callbacks_over.set()
                return
            callback, job.callback = job.callback, _done
            try:
                callback(job.status)
            except BaseException:
                traceback.print_exc()
                _terminate("a callback raised an exception")
            # It holds the model: if nobody else does any more, the model is destroyed here.
            del callback
            job.is_called_back.set()
            del job


def _done(_: int) -> None:
    """The callback of a job that has been called back."""


def _bytes_of(array: Array | None) -> Bytes:
    # Buffers were checked when they were submitted: contiguous, and of the right size.
    return np.asarray(array).reshape(-1).view(np.uint8)


def _terminate(why: str) -> None:
    print(f"terminate called: {why}", file=sys.stderr, flush=True)
    os.abort()


# Threads of a finished interpreter never run again: a pipeline that is still open when the
# program ends is closed before that.
_OPEN: weakref.WeakSet[Pipeline] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for pipeline in list(_OPEN):
        pipeline.close()
