"""What happens to the box as a whole: power, clock, disk, files, models that come and go."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from load.chaos.models import DIGITS, HAILO, INT8, PLAIN
from load.chaos.scene import GUEST, REJOIN_S, VERSIONS, Scene
from load.chaos.schedule import BOX, Fault

STEP_S: Final = 3600.0
DECISIONS: Final = 3
RESTARTS: Final = ("reboot", "clock-1970", "corrupt")
CORRUPT: Final = ("hef", "onnx-int8", PLAIN)
_BLOCK: Final = bytes(1 << 20)


async def strike(fault: Fault, scene: Scene) -> None:
    """Let a fault happen, lift it, and note what was seen. Raises BoxError, OSError."""
    match fault.kind:
        case "reboot":
            await _reboot(fault, scene)
        case "clock-forward":
            await _step_clock(fault, scene, STEP_S)
        case "clock-back":
            await _step_clock(fault, scene, -STEP_S)
        case "clock-1970":
            await _begin_in_1970(fault, scene)
        case "disk-full":
            await _fill_disk(fault, scene)
        case "corrupt":
            await _corrupt(fault, scene)
        case "models":
            await _change_models(fault, scene)
        case other:
            raise ValueError(f"no box fault '{other}'")


async def power_cycle(fault: Fault, scene: Scene) -> None:
    """Take the power away and give it back; what was decided by name has to be there again."""
    with scene.off(fault.kind) as window, scene.struck():
        await scene.box.cut_power()
        began = time.monotonic()
        scene.box.start()
        window.until_s = await scene.box.ready()
        scene.note("ready", BOX, fault.kind, "after a power cut", window.until_s - began)
    await _all_there(fault, scene)


async def _reboot(fault: Fault, scene: Scene) -> None:
    """Without a network: everything has to come from the disk."""
    before = scene.box.node()
    if scene.network is not None:
        scene.network.cut()
    try:
        await power_cycle(fault, scene)
    finally:
        if scene.network is not None:
            scene.network.mend()
    mended_s = time.monotonic()
    if scene.probe is not None and before is not None:
        took_s = await scene.rejoined(mended_s, 0)
        is_in_time = took_s is not None and took_s <= REJOIN_S
        scene.note("rejoined", BOX, fault.kind, "", took_s, holds=is_in_time)


async def _all_there(fault: Fault, scene: Scene) -> None:
    """See that what was served before is served, and that the device comes back."""
    missing = await scene.compare_guests()
    loaded = {model for model, _ in await scene.loaded()}
    missing += "".join(f"; {m} is not loaded" for m in (DIGITS, PLAIN) if m not in loaded)
    scene.note("state", BOX, fault.kind, missing or "as before", holds=not missing)
    took_s = await scene.back_on_top(time.monotonic())
    scene.note("on top", BOX, fault.kind, "" if took_s is not None else "never", took_s)


async def _step_clock(fault: Fault, scene: Scene, offset_s: float) -> None:
    if scene.clock is None:
        scene.note("not run", BOX, fault.kind, "the clock cannot be set here")
        return
    with scene.excluded("tokens by another clock", stream="token"):
        scene.clock.step(offset_s)
        scene.note("struck", BOX, fault.kind, f"clock {offset_s:+.0f} s")
        await asyncio.sleep(fault.lasts_s)
        scene.clock.step(0.0)
    scene.note("lifted", BOX, fault.kind)


async def _begin_in_1970(fault: Fault, scene: Scene) -> None:
    """A box without a battery for its clock, until it has a network."""
    if scene.clock is None:
        scene.note("not run", BOX, fault.kind, "the clock cannot be set here")
        return
    with scene.excluded("tokens by another clock", stream="token"):
        scene.clock.step(-time.time())
        scene.note("struck", BOX, fault.kind, "power cut, the clock begins in 1970")
        try:
            await power_cycle(fault, scene)
            await asyncio.sleep(fault.lasts_s)
        finally:
            scene.clock.step(0.0)
    scene.note("lifted", BOX, fault.kind)


async def _fill_disk(fault: Fault, scene: Scene) -> None:
    """Nothing can be written: it serves, says so, and takes changes again when there is room."""
    filler = scene.box.home.root / "filler"
    _fill(filler)
    scene.note("struck", BOX, fault.kind, f"{filler.stat().st_size >> 20} MiB, no room left")
    version = VERSIONS[0]
    was = scene.guests.get(version, False)
    try:
        status = await scene.load_guest(version, not was)
        _fill(filler)
        await asyncio.sleep(1.0)
        says_so = any("written down" in reason for reason in await _reasons(scene))
        scene.note(
            "says so",
            BOX,
            fault.kind,
            f"load by name {status}; {'health has it' if says_so else 'health has nothing'}",
            holds=says_so or status != 200,
        )
        code, text = await _add_package(scene)
        scene.note("refused", BOX, fault.kind, _line(text), holds=code != 0)
        await asyncio.sleep(fault.lasts_s)
    finally:
        filler.unlink(missing_ok=True)
    scene.note("lifted", BOX, fault.kind)
    status = await scene.load_guest(version, was)
    still = [reason for reason in await _reasons(scene) if "written down" in reason]
    code, text = await _add_package(scene)
    if code == 0:
        await scene.box.command("edge", "models", "remove", GUEST, "3")
    detail = "; ".join([*still, *([_line(text)] if code else [])])
    scene.note(
        "recovered", BOX, fault.kind, detail, holds=status == 200 and not still and code == 0
    )


def _fill(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        block = _BLOCK
        while block:
            try:
                os.write(descriptor, block)
            except OSError:
                block = block[: len(block) // 2]
    finally:
        os.close(descriptor)


async def _add_package(scene: Scene) -> tuple[int, str]:
    return await scene.box.command(
        "edge", "models", "add", GUEST, "3", str(scene.models / "plain.onnx")
    )


async def _corrupt(fault: Fault, scene: Scene) -> None:
    """A file changes on the disk and the runtime is started again: the rest is served."""
    which = CORRUPT[fault.value % len(CORRUPT)]
    model = PLAIN if which == PLAIN else DIGITS
    path = _artifact(scene, model, "onnx" if which == PLAIN else which)
    sound = path.read_bytes()
    damaged = bytearray(sound)
    damaged[len(sound) // 2] ^= 0xFF
    path.write_bytes(damaged)
    scene.note("struck", BOX, fault.kind, f"{model}/{path.name}")
    try:
        is_lost = which == PLAIN  # digits has other artifacts
        with scene.excluded(f"{path.name} is damaged", PLAIN) if is_lost else nullcontext():
            await _restart(fault, scene)
            await asyncio.sleep(1.0)
            await _says_what_is_damaged(fault, scene, model, which)
            await asyncio.sleep(fault.lasts_s)
            path.write_bytes(sound)
            if is_lost:
                status, _ = await scene.ask("POST", f"/v2/repository/models/{PLAIN}/load", {})
                scene.note("healed", BOX, fault.kind, f"load by name {status}", holds=status == 200)
        if not is_lost:  # its artifacts are opened when it is
            await _restart(fault, scene)
            took_s = await scene.back_on_top(time.monotonic())
            scene.note("healed", BOX, fault.kind, "", took_s, holds=took_s is not None)
    finally:
        path.write_bytes(sound)


async def _restart(fault: Fault, scene: Scene) -> None:
    with scene.off(fault.kind) as window, scene.struck():
        began = time.monotonic()
        await scene.box.restart_runtime()
        window.until_s = await scene.box.ready()
        scene.note("ready", BOX, fault.kind, "after a restart", window.until_s - began)


async def _says_what_is_damaged(fault: Fault, scene: Scene, model: str, which: str) -> None:
    await scene.watch.look()
    found = scene.watch.model(model)
    rungs = [rung["name"] for rung in found["rungs"]] if found is not None else []
    reasons = [reason for reason in await _reasons(scene) if reason.startswith(f"{model}:")]
    match which:
        case "hef":
            is_rest_there = bool(rungs) and found is not None and found["rung"] != HAILO
        case "onnx-int8":
            is_rest_there = bool(rungs) and INT8 not in rungs
        case _:
            others = {name for name, _ in await scene.loaded()}
            is_rest_there = DIGITS in others and not rungs
    detail = (
        f"served by {', '.join(rungs) or 'nothing'}; it says: {'; '.join(reasons) or 'nothing'}"
    )
    scene.note("says so", BOX, fault.kind, detail[:300], holds=is_rest_there and bool(reasons))


def _artifact(scene: Scene, model: str, kind: str) -> Path:
    packages, _ = scene.box.packages.scan()
    for package in packages:
        if package.manifest.model == model:
            for entry in package.manifest.artifacts:
                if entry.format == kind:
                    return package.folder / entry.file
    raise FileNotFoundError(f"{model} has no {kind} on the box")


async def _reasons(scene: Scene) -> list[str]:
    await scene.watch.look()
    return scene.watch.reasons


async def _change_models(fault: Fault, scene: Scene) -> None:
    """Load and unload versions by name, a few times; the last decisions stay."""
    for turn in range(DECISIONS):
        version = VERSIONS[(fault.value + turn) % len(VERSIONS)]
        wanted = not scene.guests.get(version, False)
        status = await scene.load_guest(version, wanted)
        what = "load" if wanted else "unload"
        scene.note("models", BOX, fault.kind, f"{what} {version}: {status}", holds=status == 200)
    missing = await scene.compare_guests()
    scene.note("state", BOX, fault.kind, missing or "as decided", holds=not missing)


def _line(text: str) -> str:
    return " ".join(text.split())[-160:]
