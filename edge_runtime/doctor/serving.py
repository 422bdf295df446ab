"""The runtime itself: whether it runs, what it says of its health, and whether models could run."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from edge_runtime.doctor.box import Box, Done, Unread
from edge_runtime.doctor.findings import Check, unreadable
from edge_runtime.errors import PrimeSparkError

_START: Final = "`sudo systemctl start prime-spark-edge`, or `prime-spark edge run`"
_LOG: Final = "`journalctl -u prime-spark-edge` and `prime-spark edge status` say more"
_DENIED: Final = os.strerror(errno.EACCES)
_ORT: Final = "from edge_runtime.backends.ort import onnxruntime as o; print(o.__version__)"
_HEALTH: Final[Mapping[str, Literal["ok", "warning", "problem"]]] = {
    "ready": "ok",
    "degraded": "warning",
}


def runtime_check(ask: Callable[[], Any]) -> Check:
    """Ask the running runtime. ask: returns its overview, or raises what `local_client` raises."""
    name = "runtime"
    try:
        said = ask()
    except PrimeSparkError as error:
        if _DENIED in error.message:
            found = Unread("this user may not open its socket")
            return unreadable(name, found, "`sudo prime-spark edge doctor`")
        return Check(name, "problem", error.message, _START)
    except ValueError:
        return Check(name, "problem", "it answers with something that is no JSON", _LOG)
    if not isinstance(said, dict):
        return Check(name, "problem", "it answers with something that is no overview", _LOG)
    health, models = str(said.get("status")), said.get("models")
    count = len(models) if isinstance(models, list) else 0
    reasons = [str(reason) for reason in _list(said.get("reasons"))]
    found_text = "; ".join((f"{health}, {count} models", *reasons))
    state = _HEALTH.get(health, "problem")
    return Check(name, state, found_text, "" if state == "ok" else _LOG)


def onnxruntime_check(box: Box, python: str) -> Check:
    """Import it in a child: a build that does not fit the processor would end this process."""
    name = "onnxruntime"
    done = box.run([python, "-c", _ORT])
    if isinstance(done, Unread):
        return unreadable(name, done)
    if isinstance(done, Done) and done.code == 0:
        return Check(name, "ok", done.out.strip())
    remedy = f"`{python} -m pip install --force-reinstall onnxruntime`; without it no model runs on"
    return Check(name, "problem", f"import fails: {done.trouble}", f"{remedy} the CPU")


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
