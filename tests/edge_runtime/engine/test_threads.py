from __future__ import annotations

import os
import sys
import threading

import pytest

from edge_runtime.engine.threads import COMPUTE_NICE, compute_pool

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="niceness is the process's here")


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@ON_LINUX
def test_threads_that_compute_step_back_and_the_others_do_not() -> None:
    before = _niceness()
    with compute_pool(2) as pool:
        inside = pool.submit(_niceness).result()
    assert inside == min(19, before + COMPUTE_NICE)
    assert _niceness() == before
