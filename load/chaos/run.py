"""One fault run from the first file to the last process: built, driven, judged, cleared away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from cluster.identity.keys import ensure_signing_key
from cluster.identity.tokens import issue
from cluster.processes import is_running
from edge_runtime.backends.base import BackendOptions
from edge_runtime.backends.onnx import load_onnx
from edge_runtime.packages import Incoming
from load.chaos import accelerator, boxfaults, clusterfaults, models
from load.chaos.background import Background
from load.chaos.box import Box, BoxError, install, run_command
from load.chaos.clients import Spec, streams
from load.chaos.clock import Clock, NoCompiler
from load.chaos.head import TOKEN_S, Head, Probe
from load.chaos.marks import Mark, figures, judge
from load.chaos.models import DIGITS, LONE, LONE_STALE, PLAIN, TARGET
from load.chaos.network import Namespace
from load.chaos.scene import BACK_S, GUEST, VERSIONS, Scene
from load.chaos.schedule import ACCELERATOR, BOX, CLUSTER, Fault, Pace, schedule
from load.chaos.watch import Watch
from load.fake_hailo.device import FakeDevice

DEADLINE_S: Final = 2.0
LATENCY_S: Final = 0.004  # of a frame: several requests are under way when the host is killed
THERMAL_S: Final = 1.0
STALE_MS: Final = 600_000.0
BURST: Final = 8
BURST_S: Final = 0.004  # until its requests are with the device
NOTICED_S: Final = 1.0  # after a fault strikes, before its consequences are judged
TOLD_EVERY_S: Final = 15.0
LEADS_IN_S: Final = 3.0
CLIENTS_END_S: Final = 10.0
_LINE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for.

    only: kinds of faults, all if empty; is_relentless: accelerator faults do not wait until the one
    before is over, and nothing is judged that needs that; keep: the folder, for its logs.
    """

    minutes: float
    seed: int
    only: tuple[str, ...] = ()
    has_cluster: bool = True
    pace: Pace = field(default_factory=Pace)
    is_trained: bool = True
    is_relentless: bool = False
    keep: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        return (ACCELERATOR, BOX, CLUSTER) if self.has_cluster else (ACCELERATOR, BOX)


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it."""

    scene: Scene
    marks: Sequence[Mark]
    figures: Any
    planned: Sequence[Fault]
    took_s: float


@dataclass(slots=True)
class _Clients:
    """The clients' process."""

    child: asyncio.subprocess.Process
    reading: asyncio.Task[None]
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)

    def burst(self, count: int) -> None:
        if self.child.stdin is not None:
            self.child.stdin.write(f"burst {count}\n".encode())

    async def end(self) -> None:
        """Let them finish what is under way."""
        if self.child.stdin is not None:
            self.child.stdin.close()
        try:
            async with asyncio.timeout(CLIENTS_END_S):
                await self.reading
                await self.child.wait()
        except TimeoutError:
            self.child.kill()
            await self.child.wait()
            self.reading.cancel()


async def run(options: Options, tell: Callable[[str], None]) -> Done:
    """Run it. Raises BoxError when the box, or the cluster, cannot even be started."""
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="psc-", dir="/tmp"))  # sockets want a short path
    planned = schedule(
        options.seed, options.minutes * 60, options.pace, options.layers, options.only
    )
    try:
        async with AsyncExitStack() as closing:
            scene = await _build(options, root, tell, closing)
            await _drive(options, scene, planned)
            found = figures(scene)
        left = _left(scene)
    finally:
        if options.keep:
            tell(f"logs are in {root}")
        else:
            await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)
    if not options.keep and await asyncio.to_thread(root.exists):
        left.append(str(root))
    return Done(scene, judge(scene, left), found, planned, time.monotonic() - began)


async def _build(
    options: Options, root: Path, tell: Callable[[str], None], closing: AsyncExitStack
) -> Scene:
    """Make the models, the network, the head, the box; what is made is cleared away by closing."""
    folder = root / "models"
    tell(f"seed {options.seed}; making the models below {root}")
    words = [str(folder)] if options.is_trained else [str(folder), "--untrained"]
    code, text = await run_command(
        [sys.executable, "-m", "load.chaos.models", *words],
        {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(root / "inductor")},
    )
    if code != 0:
        raise BoxError(f"the models were not made: {text[-800:]}")
    device = FakeDevice(root / "device")
    device.create(latency_s=LATENCY_S, thermal_s=THERMAL_S)
    try:
        clock = Clock(root)
    except NoCompiler as error:
        tell(f"clock faults are left out: {error}")
        clock = None
    network = Namespace.of_this_process() if options.has_cluster else None
    if network is not None:
        closing.callback(network.remove)
        try:
            network.make()
        except subprocess.CalledProcessError as error:
            raise BoxError(f"no network namespace for the box: {error.stderr}") from None
    box = Box(root, device, clock, network)
    closing.callback(box.remove)
    box.make()
    closing.push_async_callback(box.stop)
    scene = Scene(
        root=root,
        models=folder,
        device=device,
        box=box,
        watch=Watch(box),
        clock=clock,
        network=network,
        tell=tell,
    )
    _install(scene)
    if network is not None:
        background = scene.background = Background()
        closing.callback(background.remove)
        # It is another machine in real life, and must not take the box's processor.
        scene.head = Head(root, network.outside, background.prefix)
        scene.head.admit(box.home)
        closing.push_async_callback(scene.head.down)
        tell("starting the head")
        await scene.head.up()
        box.head = scene.head.gcs
    key, token = box.credentials(), _token(scene)
    tell("starting the box")
    box.start()
    await box.ready()
    if scene.head is not None:
        tell("the head serves digits on the edge")
        await scene.head.serve_digits(folder)
        scene.probe = Probe(scene.head, models.read(folder)[DIGITS])
    spec = Spec(
        models=str(folder),
        host=box.host,
        rest_port=box.rest_port,
        grpc_port=box.grpc_port,
        key=key,
        token=token,
        streams=streams(),
        deadline_s=DEADLINE_S,
        seed=options.seed,
    )
    spec.write(root / "clients.json")
    return scene


def _install(scene: Scene) -> None:
    """Put the packages on the box, as somebody on the spot does: it is another machine."""
    folder, packages = scene.models, scene.box.packages
    hef = Incoming("hef", folder / "digits.hef", TARGET)
    artifacts = [
        Incoming("onnx", folder / "digits.onnx"),
        Incoming("onnx-int8", folder / "digits-int8.onnx"),
        hef,
    ]
    install(packages, DIGITS, "1", artifacts)
    plain = [Incoming("onnx", folder / "plain.onnx")]
    install(packages, PLAIN, "1", plain)
    for version in VERSIONS:
        install(packages, GUEST, version, plain)
    backend = load_onnx(folder / "digits.onnx", BackendOptions())
    signature = backend.signature
    backend.close()
    install(packages, LONE, "1", [hef], signature)
    install(packages, LONE_STALE, "1", [hef], signature, cache_stale_ms=STALE_MS)
    scene.guests.update({VERSIONS[0]: False, VERSIONS[1]: True})  # the newest is, unless told so


def _token(scene: Scene) -> str:
    if scene.head is not None:
        return scene.head.token()
    key = ensure_signing_key(scene.box.home)
    return issue(key, "chaos", ["infer"], TOKEN_S, time.time(), kind="user")


async def _drive(options: Options, scene: Scene, planned: Sequence[Fault]) -> None:
    """Let the clients ask and the faults happen for the time that was asked for."""
    async with asyncio.TaskGroup() as background:
        watching = [background.create_task(scene.watch.run())]
        if scene.probe is not None:
            watching.append(background.create_task(scene.probe.run()))
        clients = await _start_clients(scene)
        await clients.is_ready.wait()
        await scene.back_on_top(time.monotonic())
        await asyncio.sleep(LEADS_IN_S)
        scene.began_s = time.monotonic()
        scene.note("begin", detail=f"{len(planned)} faults in {options.minutes:g} min")
        watching.append(background.create_task(_tell_progress(scene)))
        watching.append(background.create_task(_notice_deaths(scene)))
        try:
            async with asyncio.TaskGroup() as faults:
                for layer in options.layers:
                    mine = [fault for fault in planned if fault.layer == layer]
                    drive = _driver(layer, clients, is_relentless=options.is_relentless)
                    faults.create_task(_happen(mine, scene, options, drive))
                faults.create_task(asyncio.sleep(options.minutes * 60))
            await asyncio.sleep(LEADS_IN_S)
        finally:
            for task in watching:
                task.cancel()
            await clients.end()


Drive = Callable[[Fault, Scene], Awaitable[None]]


def _driver(layer: str, clients: _Clients, *, is_relentless: bool) -> Drive:
    async def break_accelerator(fault: Fault, scene: Scene) -> None:
        async with scene.accelerator_free:
            scene.device.heal()  # of what did not come to happen
            struck = await _break_accelerator(fault, scene, clients)
            if not is_relentless:
                await _see_it_back(fault, scene, struck)

    async def break_box(fault: Fault, scene: Scene) -> None:
        if fault.kind not in boxfaults.RESTARTS:
            await boxfaults.strike(fault, scene)
            return
        async with scene.node_free, scene.accelerator_free:
            await boxfaults.strike(fault, scene)

    async def break_cluster(fault: Fault, scene: Scene) -> None:
        async with scene.node_free:
            await clusterfaults.strike(fault, scene)

    return {ACCELERATOR: break_accelerator, BOX: break_box, CLUSTER: break_cluster}[layer]


async def _happen(faults: Sequence[Fault], scene: Scene, options: Options, drive: Drive) -> None:
    """Let a layer's faults happen one after the other, none before its time."""
    until = scene.began_s + options.minutes * 60
    for fault in faults:
        await asyncio.sleep(max(0.0, scene.began_s + fault.at_s - time.monotonic()))
        if time.monotonic() > until:
            return  # those before it took longer than planned
        try:
            await drive(fault, scene)
        except (BoxError, OSError, psutil.Error, ValueError) as error:
            detail = f"{type(error).__name__}: {error}"
            scene.note("failed", fault.layer, fault.kind, detail, holds=False)


async def _break_accelerator(fault: Fault, scene: Scene, clients: _Clients) -> tuple[float, float]:
    """Return when it began, and when it was over: lifted, or struck for those that strike once."""
    if fault.kind in accelerator.UNDER_WAY:
        clients.burst(BURST)
        await asyncio.sleep(BURST_S)
    began_s = time.monotonic()
    scene.strikes.append(began_s)
    struck = await accelerator.strike(fault, scene.device, scene.watch)
    scene.strikes += [struck.at_s, *struck.kills]
    scene.kills += struck.kills
    value = f"status {fault.value}" if fault.value else ""
    scene.note("struck", ACCELERATOR, fault.kind, value, at_s=struck.at_s)
    healed_s = struck.at_s
    if struck.heal is not None:
        resets = scene.device.resets
        await asyncio.sleep(max(0.0, fault.lasts_s - (time.monotonic() - struck.at_s)))
        if fault.kind != "hang-reset" or scene.device.resets == resets:
            struck.heal()
            healed_s = time.monotonic()
            scene.strikes.append(healed_s)
    return began_s, healed_s


async def _see_it_back(fault: Fault, scene: Scene, struck: tuple[float, float]) -> None:
    began_s, healed_s = struck
    await asyncio.sleep(max(0.0, began_s + NOTICED_S - time.monotonic()))
    took_s = await scene.back_on_top(healed_s)
    detail = "" if scene.watch.history.fell_after(began_s) else "it never fell"
    is_in_time = took_s is not None and took_s <= BACK_S
    scene.note("back", ACCELERATOR, fault.kind, detail, took_s, holds=is_in_time)


async def _start_clients(scene: Scene) -> _Clients:
    prefix = scene.network.prefix if scene.network is not None else []
    log = (scene.root / "clients.log").open("wb")
    with log:
        child = await asyncio.create_subprocess_exec(
            *prefix,
            *(sys.executable, "-m", "load.chaos.clients", str(scene.root / "clients.json")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=_LINE_BYTES,
        )
    is_ready = asyncio.Event()

    async def read() -> None:
        assert child.stdout is not None  # noqa: S101 (it was asked for)
        async for line in child.stdout:
            is_ready.set()
            scene.ledger.take(line)
        is_ready.set()

    reading = asyncio.get_running_loop().create_task(read())
    return _Clients(child, reading, is_ready)


async def _tell_progress(scene: Scene) -> None:
    while True:
        await asyncio.sleep(TOLD_EVERY_S)
        counts, rungs = scene.ledger.counts(), scene.ledger.rungs()
        by_rung = ", ".join(f"{name} {count}" for name, count in rungs.items())
        bad = len(scene.ledger.of("wrong", "leak", "lost"))
        scene.tell(
            f"{time.monotonic() - scene.began_s:7.1f} s  {counts.right} right ({by_rung}), "
            f"{counts.refused} refused, {counts.late} late, {counts.off} off, {bad} wrong or lost; "
            f"now {scene.watch.rung}"
        )


async def _notice_deaths(scene: Scene) -> None:
    """Note when the runtime has ended without having been ended here."""
    known: psutil.Process | None = None
    while True:
        await asyncio.sleep(1.0)
        times = len(scene.ledger.off)
        if any(window.until_s == float("inf") for window in scene.ledger.off):
            known = None  # it is another one afterwards
        elif known is None:
            known = await asyncio.to_thread(scene.box.runtime)
        elif not is_running(known) and times == len(scene.ledger.off):
            scene.note("died", detail=f"runtime {known.pid}", holds=False)
            known = None


def _left(scene: Scene) -> list[str]:
    """Return what is still there of the run: processes, mounts, namespaces, folders."""
    found: list[str] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            words = " ".join(process.cmdline())
            if process.pid != psutil.Process().pid and str(scene.root) in words:
                found.append(f"process {process.pid} {words[:80]}")
    found += [f"process {p.pid}" for p in scene.box.processes()]
    if scene.head is not None and scene.head.is_running():
        found.append("processes of the head")
    if scene.box.is_mounted:
        found.append(f"mount {scene.box.home.root}")
    if scene.network is not None and scene.network.is_there:
        found.append(f"namespace {scene.network.name}")
    if scene.background is not None and scene.background.is_there:
        found.append("control group")
    homes = [scene.box.home, *([scene.head.home] if scene.head is not None else [])]
    for home in homes:
        found += [
            str(folder)
            for folder in (home.run, home.edge_run)
            if not folder.is_relative_to(scene.root) and folder.exists()
        ]
    return found
