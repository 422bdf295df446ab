"""The host's side of the driver, in this process over the fake."""

from __future__ import annotations

import gc
import mmap
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.accelerator.wire import Slots
from load.fake_hailo.device import MARKER, FakeDevice
from tests.edge_runtime.accelerator import networks
from tests.edge_runtime.accelerator.networks import Compiled, assert_right, with_outputs

MAX_ROWS = 6


class Loaded:
    """A network, its memory, and the ends of its runs."""

    def __init__(self, device: Any, net: Compiled, path: Path | None = None) -> None:
        self.net = net
        self.slots: Slots = net.slots(MAX_ROWS, count=2)
        self.memory = mmap.mmap(-1, self.slots.size_bytes)
        self.network = device.load(str(path or net.hef), self.slots, self.memory)
        self.ends: dict[int, tuple[int, int, str]] = {}
        self.threads: set[int] = set()
        self._changed = threading.Condition()

    def start(self, job: int, rows: int, slot: int = 0) -> Any:
        """Start a run of images of their own; return them."""
        x = self.net.images(rows, seed=job)
        (inputs,), outputs = self.slots.views(self.memory, slot)
        inputs[:rows] = x
        for array in outputs:
            array[...] = -1.0
        self.network.run(job, slot, rows, self.done)
        return x

    def done(self, job: int, status: int, taken_ns: int, text: str) -> None:
        with self._changed:
            assert job not in self.ends, "a run has ended twice"
            self.ends[job] = status, taken_ns, text
            self.threads.add(threading.get_ident())
            self._changed.notify_all()

    def end(self, job: int) -> tuple[int, int, str]:
        with self._changed:
            assert self._changed.wait_for(lambda: job in self.ends, 20)
        return self.ends[job]

    def outputs(self, rows: int, slot: int = 0) -> dict[str, Any]:
        _, arrays = self.slots.views(self.memory, slot)
        names = [field.name for field in self.slots.outputs]
        return {name: array[:rows] for name, array in zip(names, arrays, strict=True)}

    def is_untouched(self, slot: int = 0) -> bool:
        return all(bool((a == -1.0).all()) for a in self.outputs(MAX_ROWS, slot).values())


@pytest.fixture
def opened(hailo: Any) -> Iterator[Any]:
    device = hailo.Device()
    yield device
    device._vdevice.release()


@pytest.fixture
def loaded(opened: Any, net: Compiled) -> Iterator[Loaded]:
    loaded = Loaded(opened, net)
    yield loaded
    loaded.network.close()


def test_it_says_what_the_device_is(opened: Any) -> None:
    assert opened.describe() == {
        "library_version": "4.23.0",
        "firmware_version": "4.23.0",
        "architecture": "hailo8",
    }


def test_a_device_that_does_not_say_who_it_is_is_served_all_the_same(
    opened: Any, device: FakeDevice
) -> None:
    device.vanish()
    described = opened.describe()
    assert "architecture" not in described
    assert described["identify_error"]
    assert set(opened.sense()) == {"temperature_error", "throttling_error"}


def test_it_senses_heat_throttling_and_power(opened: Any, loaded: Loaded) -> None:
    loaded.start(1, 1)
    loaded.end(1)
    sensed = opened.sense()
    assert 30 < sensed["temperature_c"] < 60
    assert sensed["throttling_level"] == -1
    assert sensed["power_w"] > 0.5


def test_a_board_without_a_sensor_leaves_power_out(device: FakeDevice, hailo: Any) -> None:
    device.create(power_sensor=False)
    opened = hailo.Device()
    assert "power_w" not in opened.sense()
    opened._vdevice.release()


@pytest.mark.parametrize("rows", range(1, MAX_ROWS + 1))
def test_batches_of_any_size_are_right_in_a_queue_of_two(loaded: Loaded, rows: int) -> None:
    x = loaded.start(rows, rows)
    status, taken_ns, text = loaded.end(rows)
    assert (status, text) == (0, "")
    assert taken_ns > rows * 1e6
    assert_right(loaded.net, x, loaded.outputs(rows))
    assert threading.get_ident() not in loaded.threads  # that of the driver


def test_two_slots_are_computed_one_behind_the_other(loaded: Loaded) -> None:
    for turn in range(0, 10, 2):
        first = loaded.start(turn, 3, slot=0)
        second = loaded.start(turn + 1, 5, slot=1)
        assert [loaded.end(turn)[0], loaded.end(turn + 1)[0]] == [0, 0]
        assert_right(loaded.net, first, loaded.outputs(3, 0))
        assert_right(loaded.net, second, loaded.outputs(5, 1))


def test_starting_a_run_does_not_wait_for_the_one_before(
    loaded: Loaded, device: FakeDevice
) -> None:
    """The vendor's jobs wait in their destructor, so one that is not over is kept."""
    device.slow(200)
    loaded.start(1, 1, slot=0)
    ((_, handle),) = loaded.network._jobs
    kept = weakref.ref(handle)
    del handle
    loaded.start(2, 1, slot=1)
    gc.collect()
    assert kept() is not None
    assert loaded.ends == {}
    loaded.end(2)
    device.slow(1)
    loaded.start(3, 1)
    loaded.end(3)
    assert len(loaded.network._jobs) == 1


@pytest.mark.parametrize("status", [4, 36, 62])
@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_failure_anywhere_in_a_batch_fails_it_and_touches_no_output(
    loaded: Loaded, device: FakeDevice, status: int, after: int
) -> None:
    device.fail(status, after_frames=after)
    loaded.start(1, MAX_ROWS)
    found, _, text = loaded.end(1)
    assert found == status
    assert text
    assert loaded.is_untouched()
    frames = loaded.network._slots[0]._frames_out
    assert any((frame == MARKER).all() for output in frames for frame in output)


@pytest.mark.parametrize("status", [2, 82])
@pytest.mark.parametrize("after", [0, 3])
def test_a_refusal_ends_the_batch_once_and_the_next_one_is_right(
    loaded: Loaded, device: FakeDevice, status: int, after: int
) -> None:
    device.fail(status, after_frames=after)
    loaded.start(1, MAX_ROWS)
    assert loaded.end(1)[0] == status
    assert loaded.is_untouched()
    x = loaded.start(2, MAX_ROWS)
    assert loaded.end(2)[0] == 0
    assert_right(loaded.net, x, loaded.outputs(MAX_ROWS))


def test_an_error_in_decoding_is_told_and_ends_nothing(loaded: Loaded) -> None:
    loaded.network._slots[0].decode = None
    loaded.start(1, 1)
    status, _, text = loaded.end(1)
    assert status == -1
    assert "TypeError" in text
    x = loaded.start(2, 1, slot=1)
    assert loaded.end(2)[0] == 0
    assert_right(loaded.net, x, loaded.outputs(1, 1))


def test_closing_a_network_aborts_its_runs_and_leaves_others_alone(
    opened: Any, net: Compiled, device: FakeDevice
) -> None:
    one, other = Loaded(opened, net), Loaded(opened, net)
    device.slow(100)
    one.start(1, 2)
    one.network.close()
    assert one.end(1)[0] == 63
    assert one.is_untouched()
    device.slow(1)
    x = other.start(1, 2)
    assert other.end(1)[0] == 0
    assert_right(net, x, other.outputs(2))
    other.network.close()


def test_detections_after_nms_are_not_supported(
    hailo: Any, opened: Any, net: Compiled, tmp_path: Path
) -> None:
    path = with_outputs(net, tmp_path / "nms.hef", is_nms=True)
    with pytest.raises(hailo.Mismatch, match="compile the network without NMS"):
        Loaded(opened, net, path)


def test_a_network_of_other_shapes_is_no_match(
    hailo: Any, opened: Any, net: Compiled, tmp_path: Path
) -> None:
    path = with_outputs(net, tmp_path / "other.hef", shape=(5, 3, 4))
    with pytest.raises(hailo.Mismatch, match="map"):
        Loaded(opened, net, path)


def test_streams_with_a_scale_per_channel_are_not_supported(hailo: Any) -> None:
    class Stream:
        quant_infos = (1, 2)
        shape = (1, 1, 2)
        is_nms = False

        def set_format_type(self, kind: object) -> None: ...

    class Model:
        def output(self, name: str) -> Stream:
            return Stream()

    with pytest.raises(hailo.Mismatch, match="has 2 scales"):
        hailo._stream(Model(), "net/y", False)


def test_a_hef_that_is_none_or_of_another_chip_has_its_status(
    hailo: Any, opened: Any, net: Compiled, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.hef"
    for content, status in [
        (b"not a hef", 26),
        (net.hef.read_bytes()[:-1], 91),
        (net.hef.read_bytes().replace(b'"hailo8"', b'"hailo9"'), 91),
    ]:
        bad.write_bytes(content)
        with pytest.raises(hailo.pyhailort.HailoRTException) as error:
            Loaded(opened, net, bad)
        assert hailo.status_of(error.value) == status


def test_opening_tells_why_it_cannot(hailo: Any, device: FakeDevice) -> None:
    for status in (64, 73, 74, 76, 77):
        device.refuse_open(status)
        with pytest.raises(hailo.pyhailort.HailoRTException) as error:
            hailo.Device()
        assert hailo.status_of(error.value) == status


def test_every_error_of_the_driver_has_its_number_however_it_arrives(hailo: Any) -> None:
    errors = hailo.pyhailort
    thrown = errors.ExceptionWrapper
    native = type("HailoRTStatusException", (Exception,), {})
    for status in (2, 4, 6, 8, 15, 18, 25, 26, 36, 48, 61, 62, 63, 69, 74, 76, 82, 87, 91, 93):
        alone = thrown.create_exception_from_status(status)
        assert hailo.status_of(alone) == status  # as callbacks get it
        alone.__cause__ = native(str(status))
        assert hailo.status_of(alone) == status
        assert hailo.status_of(native(str(status))) == status
    assert hailo.status_of(ValueError("no number")) == hailo.UNKNOWN
    wrapped = ValueError("no number")
    wrapped.__cause__ = OSError(2, "No such file")
    assert hailo.status_of(wrapped) == hailo.UNKNOWN


def test_a_hailo_10h_works_alike(device: FakeDevice, tmp_path: Path, request: Any) -> None:
    device.create(architecture="HAILO10H")
    hailo = request.getfixturevalue("hailo")
    net = networks.make(tmp_path / "net", "hailo10h")
    opened = hailo.Device()
    assert opened.describe()["architecture"] == "hailo10h"
    loaded = Loaded(opened, net)
    x = loaded.start(1, 4)
    assert loaded.end(1)[0] == 0
    assert_right(net, x, loaded.outputs(4))
    loaded.network.close()
    assert opened.sense()["temperature_c"] > 0
    opened._vdevice.release()


def test_codes_are_those_that_the_device_would_be_given_by_hand(loaded: Loaded) -> None:
    x = loaded.start(1, 1)
    loaded.end(1)
    (frames,) = loaded.network._slots[0]._frames_in
    (_, stream) = loaded.network._pairs_in[0]
    by_hand = np.rint(x[0] / stream.scale) + stream.zero_point
    assert np.abs(frames[0].astype(int) - by_hand.transpose(1, 2, 0).clip(0, 255)).max() <= 1
