"""As much of the vendor's names as the accelerator host uses; every frame is done at once.

A "HEF" is a JSON file: `inputs` and `outputs` by name with the shape of a frame, and
`has_thread`: whether callbacks come from a thread of the driver, as the vendor's do, or from within
`run_async`. Outputs are not touched.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__version__ = "0.0.0"


class HailoSchedulingAlgorithm:
    ROUND_ROBIN = 1


class FormatType:
    UINT8 = 1


class _Params:
    scheduling_algorithm = 0


class _Quantisation:
    qp_scale = 1.0
    qp_zp = 0.0


class _Stream:
    is_nms = False
    quant_infos = (_Quantisation(),)

    def __init__(self, name: str, shape: Sequence[int]) -> None:
        self.name = name
        self.shape = tuple(shape)

    def set_format_type(self, kind: int) -> None:
        """There is only one."""


class _Port:
    buffer: Any = None

    def set_buffer(self, buffer: Any) -> None:
        self.buffer = buffer


class _Bindings:
    def __init__(self, names: Sequence[str]) -> None:
        self._ports = {name: _Port() for name in names}

    def input(self, name: str) -> _Port:
        return self._ports[name]

    def output(self, name: str) -> _Port:
        return self._ports[name]


class _Configured:
    def __init__(self, names: Sequence[str], has_thread: bool) -> None:
        self._names = names
        self._due: queue.SimpleQueue[Callable[..., None] | None] = queue.SimpleQueue()
        self._has_thread = has_thread
        if has_thread:
            threading.Thread(target=self._call_back, daemon=True).start()

    def get_async_queue_size(self) -> int:
        return 2

    def create_bindings(self) -> _Bindings:
        return _Bindings(self._names)

    def wait_for_async_ready(self, timeout_ms: int, frames_count: int) -> None:
        """It always is."""

    def run_async(self, bindings: Sequence[_Bindings], callback: Callable[..., None]) -> object:
        if self._has_thread:
            self._due.put(callback)
        else:
            callback(completion_info=None)
        return self

    def shutdown(self) -> None:
        self._due.put(None)

    def _call_back(self) -> None:
        while (callback := self._due.get()) is not None:
            callback(completion_info=None)


class _Model:
    def __init__(self, path: str) -> None:
        document: Mapping[str, Any] = json.loads(Path(path).read_bytes())
        streams: Mapping[str, Sequence[int]] = {**document["inputs"], **document["outputs"]}
        self._streams = {name: _Stream(name, shape) for name, shape in streams.items()}
        self._has_thread = bool(document["has_thread"])
        self.input_names = list(document["inputs"])
        self.output_names = list(document["outputs"])

    def input(self, name: str) -> _Stream:
        return self._streams[name]

    def output(self, name: str) -> _Stream:
        return self._streams[name]

    def set_batch_size(self, size: int) -> None:
        """It makes no difference."""

    def configure(self) -> _Configured:
        return _Configured([*self.input_names, *self.output_names], self._has_thread)


class VDevice:
    def __init__(self, params: _Params) -> None:
        self.params = params

    @staticmethod
    def create_params() -> _Params:
        return _Params()

    def get_physical_devices(self) -> Sequence[Any]:
        return ()

    def create_infer_model(self, path: str) -> _Model:
        return _Model(path)
