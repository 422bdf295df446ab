"""The asynchronous API: InferModel, ConfiguredInferModel, bindings, jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any

from .._native import hef as hef_format
from .._native.enums import FormatOrder, FormatType, HailoPowerMode, HailoStreamDirection
from .._native.infer_model import (
    BindingsHandle,
    BufferSlot,
    ConfiguredHandle,
    Format,
    InferModelHandle,
    JobHandle,
    QuantInfo,
    StreamSettings,
    pick,
)
from .._native.pipeline import Array
from ._errors import ExceptionWrapper, HailoRTException


class VStreamInfo:
    """A stream as the HEF describes it."""

    def __init__(
        self, stream: hef_format.Stream, network: str, direction: HailoStreamDirection
    ) -> None:
        self.name = stream.name
        self.network_name = network
        self.direction = direction
        self.shape = stream.shape
        self.format = Format(FormatType.UINT8, stream.order)
        self.quant_info = QuantInfo.of(stream)


class HEF:
    """A compiled file; made from a path (str) or from its bytes, and from nothing else."""

    def __init__(self, hef_source: str | bytes) -> None:
        if not isinstance(hef_source, (str, bytes)):
            raise ValueError("HEF can only be created from a file path (str) or a buffer (bytes)")
        self._path = hef_source if isinstance(hef_source, str) else None
        with ExceptionWrapper():
            self._hef = (
                hef_format.read_file(hef_source)
                if isinstance(hef_source, str)
                else hef_format.parse(hef_source)
            )

    @property
    def path(self) -> str | None:
        """Where it was read from."""
        return self._path

    def get_network_group_names(self) -> list[str]:
        """The one network group."""
        return [self._hef.network]

    def get_networks_names(self, network_group_name: str | None = None) -> list[str]:
        """The one network of it."""
        return [f"{self._hef.network}/{self._hef.network}"]

    def get_input_vstream_infos(self, name: str | None = None) -> list[VStreamInfo]:
        """The inputs."""
        h2d = HailoStreamDirection.H2D
        return [VStreamInfo(s, self._hef.network, h2d) for s in self._hef.inputs]

    def get_output_vstream_infos(self, name: str | None = None) -> list[VStreamInfo]:
        """The outputs."""
        d2h = HailoStreamDirection.D2H
        return [VStreamInfo(s, self._hef.network, d2h) for s in self._hef.outputs]

    def get_all_vstream_infos(self, name: str | None = None) -> list[VStreamInfo]:
        """Both."""
        return self.get_input_vstream_infos(name) + self.get_output_vstream_infos(name)

    def get_sorted_output_names(self, network_group_name: str | None = None) -> list[str]:
        """The outputs' names in the model's order."""
        return [stream.name for stream in self._hef.outputs]


class AsyncInferCompletionInfo:
    """What a callback is told: `exception` is None, or an error without a cause."""

    def __init__(self, exception: HailoRTException | None) -> None:
        self._exception = exception

    @property
    def exception(self) -> HailoRTException | None:
        """Why the job failed."""
        return self._exception


class AsyncInferJob:
    """A job that was started."""

    def __init__(self, job: JobHandle) -> None:
        self._job = job

    def wait(self, timeout_ms: float) -> None:
        """Wait so long for the job, and then so long again for its callback."""
        with ExceptionWrapper():
            self._job.wait(timedelta(milliseconds=timeout_ms))


class InferModel:
    """A network whose formats can still be chosen."""

    class InferStream:
        """An input or an output of it."""

        def __init__(self, infer_stream: StreamSettings) -> None:
            self._infer_stream = infer_stream

        @property
        def name(self) -> str:
            """The vendor-like name."""
            return self._infer_stream.stream.name

        @property
        def shape(self) -> list[int]:
            """Height, width, channels; one frame."""
            return list(self._infer_stream.stream.shape)

        @property
        def format(self) -> Format:
            """Type and order of its buffers."""
            return self._infer_stream.format

        @property
        def quant_infos(self) -> list[QuantInfo]:
            """How values become codes."""
            return [QuantInfo.of(self._infer_stream.stream)]

        @property
        def is_nms(self) -> bool:
            """Whether detections come out of it."""
            return self._infer_stream.stream.is_nms

        def set_format_type(self, type: FormatType) -> None:  # noqa: A002  the vendor's name
            """Ask for buffers of this element type."""
            self._infer_stream.set_type(type)

        def set_format_order(self, order: FormatOrder) -> None:
            """Ask for buffers of this order."""
            self._infer_stream.order = order

        def set_nms_score_threshold(self, threshold: float) -> None:
            """Makes `configure` fail where there is no such post-processing."""
            self._infer_stream.nms["score_threshold"] = threshold

        def set_nms_iou_threshold(self, threshold: float) -> None:
            """Makes `configure` fail where there is no such post-processing."""
            self._infer_stream.nms["iou_threshold"] = threshold

        def set_nms_max_proposals_per_class(self, max_proposals: int) -> None:
            """Makes `configure` fail where there is no such post-processing."""
            self._infer_stream.nms["max_proposals_per_class"] = max_proposals

        def set_nms_max_accumulated_mask_size(self, max_accumulated_mask_size: int) -> None:
            """Makes `configure` fail where there is no such post-processing."""
            self._infer_stream.nms["max_accumulated_mask_size"] = max_accumulated_mask_size

    def __init__(self, infer_model: InferModelHandle, hef_source: str | bytes) -> None:
        self._infer_model = infer_model
        self._hef_source = hef_source
        self._hef: HEF | None = None

    @property
    def hef(self) -> HEF:
        """The file, read again at first use."""
        if self._hef is None:
            self._hef = HEF(self._hef_source)
        return self._hef

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs."""
        return list(self._infer_model.inputs)

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return list(self._infer_model.outputs)

    @property
    def inputs(self) -> list[InferStream]:
        """All inputs."""
        return [self.InferStream(settings) for settings in self._infer_model.inputs.values()]

    @property
    def outputs(self) -> list[InferStream]:
        """All outputs."""
        return [self.InferStream(settings) for settings in self._infer_model.outputs.values()]

    def input(self, name: str = "") -> InferStream:
        """One input; the name may be left out where there is no other."""
        with ExceptionWrapper():
            return self.InferStream(pick(self._infer_model.inputs, name))

    def output(self, name: str = "") -> InferStream:
        """One output; the name may be left out where there is no other."""
        with ExceptionWrapper():
            return self.InferStream(pick(self._infer_model.outputs, name))

    def set_batch_size(self, batch_size: int) -> None:
        """Frames to a burst, as a uint16."""
        with ExceptionWrapper():
            self._infer_model.set_batch_size(batch_size)

    def set_power_mode(self, power_mode: HailoPowerMode) -> None:
        """Taken, and of no effect."""

    def configure(self) -> ConfiguredInferModel:
        """Load the network; the result is to be used as a context manager."""
        with ExceptionWrapper():
            return ConfiguredInferModel(self._infer_model.configure(), self)


class ConfiguredInferModel:
    """A network that runs. Leaving the context destroys it and joins its callback thread."""

    class Bindings:
        """The buffers of one frame."""

        class InferStream:
            """The buffer of one stream."""

            def __init__(self, infer_stream: BufferSlot) -> None:
                self._infer_stream = infer_stream
                self._buffer: Array | None = None

            def set_buffer(self, buffer: Array) -> None:
                """Take an array; only whether it is contiguous is looked at now."""
                if not buffer.flags.c_contiguous:
                    raise HailoRTException("Buffer must be C_CONTIGUOUS")
                self._infer_stream.set_buffer(buffer)
                self._buffer = buffer

            def get_buffer(self, tf_format: bool | None = False) -> Any:
                """The array that was set."""
                return self._buffer

        def __init__(
            self, bindings: BindingsHandle, input_names: list[str], output_names: list[str]
        ) -> None:
            self._bindings = bindings
            self._input_names = input_names
            self._output_names = output_names
            self._inputs: dict[str, ConfiguredInferModel.Bindings.InferStream] = {}
            self._outputs: dict[str, ConfiguredInferModel.Bindings.InferStream] = {}

        def input(self, name: str = "") -> InferStream:
            """An input; the name may be left out where there is no other."""
            if not name and len(self._input_names) == 1:
                name = self._input_names[0]
            if name not in self._inputs:
                with ExceptionWrapper():
                    self._inputs[name] = self.InferStream(self._bindings.input(name))
            return self._inputs[name]

        def output(self, name: str = "") -> InferStream:
            """An output; the name may be left out where there is no other."""
            if not name and len(self._output_names) == 1:
                name = self._output_names[0]
            if name not in self._outputs:
                with ExceptionWrapper():
                    self._outputs[name] = self.InferStream(self._bindings.output(name))
            return self._outputs[name]

        def get(self) -> BindingsHandle:
            """The binding's own object."""
            return self._bindings

    def __init__(self, configured: ConfiguredHandle, infer_model: InferModel) -> None:
        self._handle: ConfiguredHandle | None = configured
        self._input_names = infer_model.input_names
        self._output_names = infer_model.output_names
        self._buffer_guards: deque[list[Any]] = deque()

    def __enter__(self) -> ConfiguredInferModel:
        """Use it within a block."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Destroy the binding's object; calls after this find none."""
        self._handle = None

    @property
    def _configured_infer_model(self) -> ConfiguredHandle:
        if self._handle is None:  # what the vendor's class stumbles over as well
            raise AttributeError("'NoneType' object has no attribute of a configured model")
        return self._handle

    def activate(self) -> None:
        """Load it into the chip, where no scheduler does."""
        with ExceptionWrapper():
            self._configured_infer_model.activate()

    def deactivate(self) -> None:
        """Take it out of the chip."""
        with ExceptionWrapper():
            self._configured_infer_model.deactivate()

    def create_bindings(
        self,
        input_buffers: Mapping[str, Array] | None = None,
        output_buffers: Mapping[str, Array] | None = None,
    ) -> Bindings:
        """Bindings for one frame, with buffers by stream name."""
        with ExceptionWrapper():
            handle = self._configured_infer_model.create_bindings()
        bindings = self.Bindings(handle, self._input_names, self._output_names)
        for name, buffer in (input_buffers or {}).items():
            bindings.input(name).set_buffer(buffer)
        for name, buffer in (output_buffers or {}).items():
            bindings.output(name).set_buffer(buffer)
        return bindings

    def wait_for_async_ready(self, timeout_ms: float = 1000, frames_count: int = 1) -> None:
        """Wait for room in the queue; HailoRTTimeout if there is none by then."""
        with ExceptionWrapper():
            self._configured_infer_model.wait_for_async_ready(
                timedelta(milliseconds=timeout_ms), frames_count
            )

    def run(self, bindings: Sequence[Bindings], timeout: float) -> None:
        """Run and wait so many milliseconds, at worst twice as many."""
        with ExceptionWrapper():
            self.run_async(bindings).wait(timeout)

    def run_async(
        self, bindings: Sequence[Bindings], callback: Callable[..., None] | None = None
    ) -> AsyncInferJob:
        """Start a job; `callback(completion_info=...)` comes on a foreign thread."""
        buffers: list[Any] = []
        for frame in bindings:
            buffers.extend(frame.input(name).get_buffer() for name in self._input_names)
            buffers.extend(frame.output(name).get_buffer(None) for name in self._output_names)
        self._buffer_guards.append(buffers)

        def callback_wrapper(status: int) -> None:
            error = ExceptionWrapper.create_exception_from_status(status) if status else None
            if callback is not None:
                callback(completion_info=AsyncInferCompletionInfo(error))
            self._buffer_guards.popleft()

        with ExceptionWrapper():
            job = self._configured_infer_model.run_async(
                [frame.get() for frame in bindings], callback_wrapper
            )
        return AsyncInferJob(job)

    def set_scheduler_timeout(self, timeout_ms: float) -> None:
        """Longest wait for the chip, where there is a scheduler."""
        with ExceptionWrapper():
            self._configured_infer_model.set_scheduler_option(timedelta(milliseconds=timeout_ms))

    def set_scheduler_threshold(self, threshold: int) -> None:
        """Frames that have to wait before the chip is asked for, where there is a scheduler."""
        with ExceptionWrapper():
            self._configured_infer_model.set_scheduler_option(threshold)

    def set_scheduler_priority(self, priority: int) -> None:
        """0 to 31, where there is a scheduler."""
        with ExceptionWrapper():
            self._configured_infer_model.set_scheduler_option(priority)

    def get_async_queue_size(self) -> int:
        """Frames that may be under way at once."""
        with ExceptionWrapper():
            return self._configured_infer_model.get_async_queue_size()

    def shutdown(self) -> None:
        """Abort what is under way; the model is of no use afterwards."""
        with ExceptionWrapper():
            self._configured_infer_model.shutdown()
