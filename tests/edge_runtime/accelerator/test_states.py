"""Faults and requests in any order: each request ends once, right or lost, and no slot is lost."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_runtime.accelerator import wire
from edge_runtime.accelerator.model import DEPTH, AcceleratorModel
from edge_runtime.backends.base import AcceleratorFault
from tests.edge_runtime.accelerator.bench import SIGNATURE, Bench, ask, is_whole, numbers, source
from tests.edge_runtime.accelerator.standin import Plan

FAULTS = ["die", "hang", "twice", "unknown", 2, 4, 6, 36, 62, 82]
LOAD_FAULTS = ["die", "hang", 8, 26, 81]
CHANGES: list[tuple[str, object]] = [
    ("load_s", 0.0),
    ("load_s", 0.4),
    ("load_s", 3.0),
    ("row_s", 0.0),
    ("row_s", 0.005),
    ("row_s", 0.1),
    ("is_present", False),
    ("is_present", True),
    ("hello", ""),
    ("hello", "import"),
    ("hello", "die"),
    ("hello", "mute"),
    ("is_full", True),
    ("is_full", False),
    ("cannot_start", True),
    ("cannot_start", False),
    ("temperature_c", None),
    ("temperature_c", 99.0),
    ("temperature_c", 110.0),
]
RUBBISH = [
    b"?",
    b"D",
    b"Dxyz",
    b"S",
    b"S[]",
    b'S{"temperature_c": "hot"}',
    b'S{"temperature_c": NaN}',
    b"H{}",
    b"H\xff\xfe",
    b"L{}",
    b'L{"model": []}',
    b'L{"model": 1, "error": 1, "status": []}',
    b"L" + b"[" * 60_000,
    wire.DONE + wire.DONE_BODY.pack(1, 0, 2**64 - 1),
    wire.DONE + wire.DONE_BODY.pack(2**64 - 1, -1, 0) + b"\xff",
]


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.bench.start()
        self.models: list[AcceleratorModel] = []
        self.opening: list[asyncio.Task[AcceleratorModel | None]] = []
        self.requests: list[asyncio.Task[None]] = []
        self.asked = 0

    @property
    def plan(self) -> Plan:
        return self.bench.plan

    @initialize(count=st.integers(0, 2))
    def begin(self, count: int) -> None:
        for _ in range(count):
            self.open(4)
        self.live(1.0)

    # What users do.

    @precondition(lambda self: len(self.models) + len(self.opening) < 3)
    @rule(max_rows=st.integers(1, 5))
    def open(self, max_rows: int) -> None:
        opening = self.bench.accelerator.open(source(max_rows=max_rows), SIGNATURE)
        self.opening.append(self.bench.loop.create_task(opening))
        self.bench.loop.live(0.0)

    @precondition(lambda self: self.opening)
    @rule()
    def give_up_opening(self) -> None:
        self.opening[-1].cancel()

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(self.models))
        self.models.remove(model)
        model.close()

    @precondition(lambda self: self.models)
    @rule(data=st.data(), rows=st.lists(st.integers(1, 4), min_size=1, max_size=4))
    def send(self, data: st.DataObject, rows: list[int]) -> None:
        model = data.draw(st.sampled_from(self.models))
        self.asked += 1
        work = ask(model, numbers(*rows, start=100.0 * self.asked))
        self.requests.append(self.bench.loop.create_task(work))
        if data.draw(st.booleans()):
            self.bench.loop.live(0.0)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.requests)).cancel()

    @precondition(lambda self: self.requests)
    @rule()
    def give_up_all_in_the_moment_that_a_run_ends(self) -> None:
        requests = list(self.requests)
        self.plan.after_done = lambda: [request.cancel() for request in requests]

    @rule(seconds=st.sampled_from([0.001, 0.002, 0.01, 0.05]))
    def live_a_moment(self, seconds: float) -> None:
        self.bench.loop.live(seconds)

    @rule(seconds=st.sampled_from([0.2, 0.3, 1.0, 5.0]))
    def live(self, seconds: float) -> None:
        self.bench.loop.live(seconds)

    # What goes wrong.

    @rule(what=st.sampled_from(FAULTS))
    def spoil_a_run(self, what: str | int) -> None:
        self.plan.run.append(what)

    @rule(what=st.sampled_from(LOAD_FAULTS))
    def spoil_a_load(self, what: str | int) -> None:
        self.plan.load.append(what)

    @rule(change=st.sampled_from(CHANGES))
    def change(self, change: tuple[str, object]) -> None:
        setattr(self.plan, *change)

    @rule(seconds=st.sampled_from([0.1, 0.6]))
    def hold_this_process_up(self, seconds: float) -> None:
        self.bench.loop.hold_up(seconds)

    @precondition(lambda self: self.bench.standin.running)
    @rule()
    def die(self) -> None:
        self.bench.host.die()

    @precondition(lambda self: self.bench.standin.running)
    @rule(message=st.one_of(st.sampled_from(RUBBISH), st.binary(min_size=1, max_size=40)))
    def say(self, message: bytes) -> None:
        self.bench.hear(message)

    @precondition(lambda self: self.bench.standin.running)
    @rule(is_stopped=st.booleans())
    def stop_the_host(self, is_stopped: bool) -> None:
        self.bench.host.is_stopped = is_stopped

    # What always holds.

    @invariant()
    def it_has_one_host_at_most_and_gives_it_what_it_can_do(self) -> None:
        assert len(self.bench.standin.running) <= 1
        for task in [task for task in self.opening if task.done()]:
            self.opening.remove(task)
            if not task.cancelled() and task.exception() is None:
                model = task.result()
                assert model is not None
                self.models.append(model)
        for request in [request for request in self.requests if request.done()]:
            self.requests.remove(request)
            self.check_end(request)

    def check_end(self, request: asyncio.Task[None]) -> None:
        if not request.cancelled():
            error = request.exception()
            assert error is None or isinstance(error, AcceleratorFault), repr(error)

    def teardown(self) -> None:
        bench = self.bench
        bench.plan.__init__()  # type: ignore[misc]
        for host in bench.standin.running:
            host.is_stopped = False
        if not self.models:
            self.opening.append(bench.loop.create_task(bench.accelerator.open(source(), SIGNATURE)))
        bench.loop.live(1.5)  # it has told how warm it is
        bench.loop.live_until(self.is_well, 4000.0, 0.23)
        assert all(model.depth == DEPTH for model in self.models)
        served = [model for model in self.models if not model.why]
        assert set(bench.host.networks) == {model.number for model in served}
        for model in served:
            bench.ask(model, 3, 1, 7)
        bench.finish()

    def is_well(self) -> bool:
        self.it_has_one_host_at_most_and_gives_it_what_it_can_do()
        is_settled = not (self.requests or self.opening or self.bench.accelerator.why)
        return is_settled and all(is_whole(m) or "status 26" in m.why for m in self.models)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
