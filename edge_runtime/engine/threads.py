"""Threads that compute."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Final

COMPUTE_NICE: Final = 5  # a third of an event loop's share where both want the processor


def compute_pool(threads: int) -> ThreadPoolExecutor:
    """Return a pool whose threads step back for event loops.

    Under overload a model keeps all processors busy. A loop that has to queue behind it reads,
    refuses and answers late whatever the model could have done in time, and on a small machine
    so do the loops of every other process.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix="engine", initializer=_step_back)


def _step_back() -> None:
    if sys.platform == "linux":  # where niceness is a thread's own
        os.nice(COMPUTE_NICE)
