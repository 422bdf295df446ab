"""ONNX Runtime on the CPU, or on a CUDA device where its build has that.

One session a model, one thread inside a run by default: two callers on a one-thread session
beat one two-thread session on small boards. ONNX strings are text, so BYTES must be UTF-8
here. BF16 has no numpy type: those tensors pass as `OrtValue`s over their 16-bit patterns.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_runtime.backends.base import BackendOptions, Cancelled
from edge_runtime.backends.onnx_work import is_data_dependent
from edge_runtime.backends.ort import onnxruntime as ort
from edge_runtime.errors import Corrupt, InvalidInput, Unsupported
from edge_runtime.protocol.binary import as_bytes, bytes_array
from edge_runtime.protocol.datatypes import BF16, BYTES
from edge_runtime.protocol.types import Array, Signature, TensorSpec

_DATATYPES: Final[Mapping[str, str]] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
_ONNX_BFLOAT16: Final = 16  # TensorProto.BFLOAT16
_SILENT: Final = 4  # onnxruntime logs fatal errors only; failures are raised


class OnnxBackend:
    """A session of ONNX Runtime behind the backend contract."""

    name = "onnxruntime"
    platform = "onnxruntime_onnx"

    def __init__(self, session: ort.InferenceSession, source: Path) -> None:
        self._session: ort.InferenceSession | None = session
        self.signature = Signature(
            tuple(_spec(node, source) for node in session.get_inputs()),
            tuple(_spec(node, source) for node in session.get_outputs()),
        )
        self.is_data_dependent = is_data_dependent(source)
        self.providers: Sequence[str] = session.get_providers()
        specs = (*self.signature.inputs, *self.signature.outputs)
        self._needs_ort_values = any(spec.datatype == BF16 for spec in specs)
        if self._needs_ort_values and any(s.datatype == BYTES for s in self.signature.inputs):
            # onnxruntime makes no OrtValue of strings, and takes BF16 in no other way.
            raise Unsupported(f"{source.name} takes BYTES and has BF16: not both can be served")
        self._datatypes = {spec.name: spec.datatype for spec in specs}
        self._bytes_inputs = frozenset(
            spec.name for spec in self.signature.inputs if spec.datatype == BYTES
        )

    def prepare(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> OnnxRun:
        if self._session is None:
            raise RuntimeError("the model is closed")
        feed = inputs
        if self._bytes_inputs:
            feed = {
                name: _to_text(name, data) if name in self._bytes_inputs else data
                for name, data in inputs.items()
            }
        return OnnxRun(self, self._session, feed, outputs)

    def close(self) -> None:
        self._session = None

    def compute(
        self,
        session: ort.InferenceSession,
        feed: Mapping[str, Array],
        outputs: Sequence[str],
        options: ort.RunOptions,
    ) -> list[Array]:
        """Run the session and return arrays in the protocol's numpy form."""
        if not self._needs_ort_values:
            found: list[Array] = session.run(list(outputs), dict(feed), options)
            return [_from_text(data) if data.dtype == np.object_ else data for data in found]
        values = {name: _to_ort_value(data, self._datatypes[name]) for name, data in feed.items()}
        results = session.run_with_ort_values(list(outputs), values, options)
        return [
            _from_ort_value(value, self._datatypes[name])
            for name, value in zip(outputs, results, strict=True)
        ]


class OnnxRun:
    """One run of a session; `abort` sets the flag that ONNX Runtime looks at between nodes."""

    __slots__ = ("_backend", "_feed", "_options", "_outputs", "_session")

    def __init__(
        self,
        backend: OnnxBackend,
        session: ort.InferenceSession,
        feed: Mapping[str, Array],
        outputs: Sequence[str],
    ) -> None:
        self._backend = backend
        self._session = session
        self._feed = feed
        self._outputs = outputs
        self._options = ort.RunOptions()
        self._options.log_severity_level = _SILENT

    def execute(self) -> list[Array]:
        try:
            return self._backend.compute(self._session, self._feed, self._outputs, self._options)
        except _ORT_REFUSALS as error:
            if self._options.terminate:
                raise Cancelled from None
            text = " ".join(str(error).split())
            raise InvalidInput(
                f"the model could not compute this input: {text[:300]}", field="inputs"
            ) from None

    def abort(self) -> None:
        self._options.terminate = True


def has_cuda() -> bool:
    """Tell whether this build of ONNX Runtime knows CUDA."""
    return CUDA in ort.get_available_providers()


def load_onnx_on_cuda(artifact: Path, options: BackendOptions) -> OnnxBackend:
    """Open an ONNX file on the first CUDA device; see `load_onnx`.

    Raises Unsupported when there is no such device: ONNX Runtime would go on without it.
    """
    backend = _load(artifact, options, [CUDA, CPU])
    if CUDA not in backend.providers:
        backend.close()
        raise Unsupported(f"{artifact.name} cannot run on CUDA here: no device was found")
    return backend


def load_onnx(artifact: Path, options: BackendOptions) -> OnnxBackend:
    """Open an ONNX file.

    Raises Corrupt when it is not a model, Unsupported for types and operators not offered here.
    """
    return _load(artifact, options, [CPU])


def _load(artifact: Path, options: BackendOptions, providers: list[str]) -> OnnxBackend:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.intra_op_threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = _SILENT
    if options.intra_op_threads > 1:
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(str(artifact), sess_options=settings, providers=providers)
    except ort.capi.onnxruntime_pybind11_state.NotImplemented as error:
        raise Unsupported(f"{artifact.name} cannot run here: {_text(error, artifact)}") from error
    except Exception as error:
        raise Corrupt(
            f"ONNX Runtime cannot open {artifact.name}: {_text(error, artifact)}"
        ) from error
    return OnnxBackend(session, artifact)


def _text(error: Exception, artifact: Path) -> str:
    """Return an error on one line, without the folder that the artifact is in."""
    return " ".join(str(error).replace(str(artifact), artifact.name).split())[:300]


def _spec(node: Any, source: Path) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        raise Unsupported(f"{source.name}: '{node.name}' is a {node.type}, only tensors are served")
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape or ())
    return TensorSpec(node.name, datatype, shape)


def _to_text(name: str, data: Array) -> Array:
    try:
        text = [as_bytes(element).decode("utf-8") for element in data.reshape(-1)]
    except UnicodeDecodeError:
        raise InvalidInput(
            f"tensor '{name}': ONNX strings are text, and this is not UTF-8", field=name
        ) from None
    return bytes_array(text, data.shape)


def _from_text(data: Array) -> Array:
    return bytes_array([as_bytes(element) for element in data.reshape(-1)], data.shape)


def _to_ort_value(data: Array, datatype: str) -> ort.OrtValue:
    if datatype == BF16:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
            np.ascontiguousarray(data), _ONNX_BFLOAT16
        )
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(data))


def _from_ort_value(value: ort.OrtValue, datatype: str) -> Array:
    if datatype != BF16:
        data: Array = value.numpy()
        return _from_text(data) if data.dtype == np.object_ else data
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    if count == 0:
        return np.empty(shape, dtype=np.uint16)
    pointer = ctypes.cast(value.data_ptr(), ctypes.POINTER(ctypes.c_uint16))
    return np.ctypeslib.as_array(pointer, (count,)).reshape(shape).copy()


def _refusals() -> tuple[type[BaseException], ...]:
    state = ort.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidArgument", "RuntimeException", "InvalidGraph", "NotImplemented")
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


_ORT_REFUSALS = _refusals()
