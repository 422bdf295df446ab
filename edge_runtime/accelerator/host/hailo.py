"""A Hailo device through the vendor's `hailo_platform`: HailoRT 4.x (Hailo-8, 8L) and 5.x (10H).

What the two lines do differently is here and nowhere else: 4.x turns its scheduler off unless
told otherwise, and both drop parameters when device ids are given beside them, so ids and
scheduler are always set in the parameters. Only the asynchronous InferModel interface is used; the
older one does not exist on a Hailo-10H.

Hazards of the binding that shape this code: a callback that raises ends the process, so every
callback body is wrapped; outputs of a failed job hold garbage, and after a time-out the device may
write into them later, so they are private buffers that are only copied out after a job has
succeeded; a job object that is destroyed waits for its callback, so jobs are kept until they have
been called back, and let go by the main thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import hailo_platform
import numpy as np
from hailo_platform.pyhailort import pyhailort

from edge_runtime.accelerator.host.tensors import Coder, Mismatch, Stream, match
from edge_runtime.accelerator.wire import Slots

READY_MS = 10_000
INVALID_ARGUMENT = 2
UNKNOWN = -1

# Errors that have a class of their own: the number is not on an error that a callback is given.
_CLASSES = (
    ("HailoRTTimeout", 4),
    ("HailoRTInvalidOperationException", 6),
    ("HailoRTInvalidArgumentException", 2),
    ("HailoRTNotFoundException", 61),
    ("HailoRTInvalidFrameException", 25),
    ("HailoRTInvalidHEFException", 26),
    ("HailoRTHEFNotCompatibleWithDevice", 93),
    ("HailoRTDriverOperationFailedException", 36),
    ("HailoCommunicationClosedException", 62),
    ("HailoRTStreamAborted", 63),
    ("HailoRTStreamAbortedByUser", 63),
    ("HailoRTNetworkGroupNotActivatedException", 69),
    ("HailoRTFirmwareControlFailedException", 18),
    ("HailoRTUnsupportedOpcodeException", 48),
    ("InvalidProtocolVersionException", 15),
)

Done = Callable[[int, int, int, str], None]  # job, status, nanoseconds, text


def status_of(error: BaseException) -> int:
    """Return the HailoRT status number behind an error, -1 when it tells none."""
    for thrown in (error, error.__cause__):  # opening a `Device` raises it as it is
        if type(thrown).__name__ == "HailoRTStatusException":
            return int(thrown.args[0])  # type: ignore[union-attr]
    for name, number in _CLASSES:
        kind = getattr(pyhailort, name, None)
        if kind is not None and isinstance(error, kind):
            return number
    _, found, rest = str(error).partition("failed with error:")
    digits = rest.strip().split(" ")[0] if found else ""
    return int(digits) if digits.isdigit() else UNKNOWN


class Device:
    """The one device of this process, opened. Raises what the binding raises."""

    def __init__(self) -> None:
        params = hailo_platform.VDevice.create_params()
        params.scheduling_algorithm = hailo_platform.HailoSchedulingAlgorithm.ROUND_ROBIN
        self._vdevice = hailo_platform.VDevice(params)
        self._physical = self._vdevice.get_physical_devices()  # its controls end with it
        self._control = self._physical[0].control if self._physical else None
        self._turns = _Turns()

    def describe(self) -> dict[str, Any]:
        """Return what the device says of itself."""
        found: dict[str, Any] = {"library_version": str(hailo_platform.__version__)}
        if self._control is None:
            return found
        try:
            identity = self._control.identify()
            firmware = identity.firmware_version
            found["firmware_version"] = (
                "%d.%d.%d"
                % (
                    firmware.major,
                    firmware.minor,
                    firmware.revision,
                )
                if hasattr(firmware, "major")
                else str(firmware)
            )
            architecture = getattr(identity.device_architecture, "name", "")
            found["architecture"] = str(architecture or identity.device_architecture).lower()
        except Exception as error:  # serving goes on without a description
            found["identify_error"] = str(error)
        return found

    def sense(self) -> dict[str, Any]:
        """Return temperature (degrees), throttling and power (watts); what cannot be read is left
        out."""
        found: dict[str, Any] = {}
        if self._control is None:
            return found
        try:
            both = self._control.get_chip_temperature()
            found["temperature_c"] = max(float(both.ts0_temperature), float(both.ts1_temperature))
        except Exception as error:
            found["temperature_error"] = str(error)
        # `get_throttling_state` says whether the protection is switched on, not whether it acts;
        # only the health information has the level, -1 while the clock is not slowed down.
        try:
            level = int(
                self._control._get_health_information().current_temperature_throttling_level
            )
            found["throttling_level"] = level
        except Exception as error:
            found["throttling_error"] = str(error)
        with contextlib.suppress(Exception):  # boards for the Pi have no sensor
            found["power_w"] = float(self._control.power_measurement())
        return found

    def load(self, path: str, slots: Slots, memory: Any) -> Network:
        """Put a network on the device. Raises Mismatch, and what the binding raises."""
        return Network(self._vdevice, self._turns, path, slots, memory)


class Network:
    """A loaded network with buffers of its own for every slot."""

    def __init__(self, vdevice: Any, turns: _Turns, path: str, slots: Slots, memory: Any) -> None:
        self._turns = turns
        model = vdevice.create_infer_model(path)
        self._pairs_in = match(slots.inputs, [_stream(model, n, True) for n in model.input_names])
        self._pairs_out = match(
            slots.outputs, [_stream(model, n, False) for n in model.output_names]
        )
        self._coders_in = [Coder(field, stream) for field, stream in self._pairs_in]
        self._coders_out = [Coder(field, stream) for field, stream in self._pairs_out]
        model.set_batch_size(slots.max_rows)
        self._model = model
        self._configured = model.configure()
        self._queue = max(1, int(self._configured.get_async_queue_size()))
        self._slots = [_Buffers(self, slots, memory, slot) for slot in range(slots.count)]
        self._jobs: list[tuple[_Batch, Any]] = []

    def run(self, job: int, slot: int, rows: int, done: Done) -> None:
        """Start a batch; `done` is called once, from a thread of the driver or from here."""
        # Letting go of one that is not over would wait for it.
        self._jobs = [(batch, handle) for batch, handle in self._jobs if not batch.is_over]
        buffers = self._slots[slot]
        batch = _Batch(job, rows, buffers, self._turns, done)
        buffers.encode(rows)
        began = 0
        while began < rows:
            count = min(self._queue, rows - began)
            try:
                self._configured.wait_for_async_ready(timeout_ms=READY_MS, frames_count=count)
                bindings = buffers.bindings[began : began + count]
                handle = self._configured.run_async(bindings, batch.callback(count))
            except Exception as error:
                batch.refuse(rows - began, status_of(error), str(error))
                return
            self._jobs.append((batch, handle))
            began += count

    def close(self) -> None:
        """Take the network off the device."""
        self._configured.shutdown()


class _Buffers:
    """A slot: views on shared memory, private frames for the device, and their bindings."""

    def __init__(self, network: Network, slots: Slots, memory: Any, slot: int) -> None:
        self._rows_in, self._rows_out = slots.views(memory, slot)
        self._coders_in = network._coders_in
        self._coders_out = network._coders_out
        self._frames_in = [
            np.zeros((slots.max_rows, *stream.shape), np.uint8) for _, stream in network._pairs_in
        ]
        self._frames_out = [
            np.zeros((slots.max_rows, *stream.shape), np.uint8) for _, stream in network._pairs_out
        ]
        self.bindings = []
        for row in range(slots.max_rows):
            binding = network._configured.create_bindings()
            for (_, stream), frames in zip(network._pairs_in, self._frames_in):
                binding.input(stream.name).set_buffer(frames[row])
            for (_, stream), frames in zip(network._pairs_out, self._frames_out):
                binding.output(stream.name).set_buffer(frames[row])
            self.bindings.append(binding)

    def encode(self, rows: int) -> None:
        for coder, source, frames in zip(self._coders_in, self._rows_in, self._frames_in):
            for row in range(rows):
                coder.encode(source[row], frames[row])

    def decode(self, rows: int) -> None:
        for coder, target, frames in zip(self._coders_out, self._rows_out, self._frames_out):
            for row in range(rows):
                coder.decode(frames[row], target[row])


class _Turns:
    """When the latest batch ended: those that waited for it on the device begin no earlier."""

    def __init__(self) -> None:
        self._ended_ns = 0
        self._lock = threading.Lock()

    def end(self, began_ns: int) -> int:
        """End a batch that was sent then; return the nanoseconds that it took."""
        with self._lock:
            before, self._ended_ns = self._ended_ns, time.perf_counter_ns()
            return self._ended_ns - max(began_ns, before)


class _Batch:
    """A batch on the device, in one or more jobs; it is over when all of them are."""

    def __init__(self, job: int, rows: int, buffers: _Buffers, turns: _Turns, done: Done) -> None:
        self._job = job
        self._rows = rows
        self._left = rows
        self._buffers = buffers
        self._turns = turns
        self._done = done
        self._status = 0
        self._text = ""
        self.is_over = False
        self._began = time.perf_counter_ns()
        self._lock = threading.Lock()

    def callback(self, count: int) -> Callable[..., None]:
        """Return what the driver calls when `count` frames have ended."""

        def ended(completion_info: Any = None) -> None:
            try:  # an exception from here would end the process
                error: BaseException | None = getattr(completion_info, "exception", None)
                if error is None:
                    self._ended(count, 0, "")
                else:
                    self._ended(count, status_of(error), str(error))
            except BaseException as unexpected:
                self._done(self._job, UNKNOWN, 0, repr(unexpected))

        return ended

    def refuse(self, count: int, status: int, text: str) -> None:
        """Frames that could not be started."""
        self._ended(count, status or UNKNOWN, text)

    def _ended(self, count: int, status: int, text: str) -> None:
        with self._lock:
            if status and not self._status:
                self._status, self._text = status, text
            self._left -= count
            if self._left:
                return
        self.is_over = True
        if not self._status:
            self._buffers.decode(self._rows)
        self._done(self._job, self._status, self._turns.end(self._began), self._text)


def _stream(model: Any, name: str, is_input: bool) -> Stream:
    stream = model.input(name) if is_input else model.output(name)
    if getattr(stream, "is_nms", False):
        raise Mismatch(
            "output '%s' holds detections after NMS, which is not supported: compile the network"
            " without NMS" % name
        )
    stream.set_format_type(hailo_platform.FormatType.UINT8)
    infos = list(stream.quant_infos)
    if len(infos) != 1:
        raise Mismatch("stream '%s' has %d scales, one is supported" % (name, len(infos)))
    return Stream(name, tuple(stream.shape), infos[0].qp_scale, infos[0].qp_zp)
