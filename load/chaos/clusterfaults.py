"""What happens between the box and its head: the box's clients must not notice any of it."""

from __future__ import annotations

import asyncio
import signal
import time

import psutil

from load.chaos.box import BoxError
from load.chaos.head import Head
from load.chaos.network import Namespace
from load.chaos.scene import REJOIN_S, Scene
from load.chaos.schedule import CLUSTER, Fault


async def strike(fault: Fault, scene: Scene) -> None:
    """Let a fault happen, lift it, and wait until the edge answers through the gateway again.

    Raises BoxError.
    """
    head, network = scene.head, scene.network
    node, runtime = scene.box.node(), await asyncio.to_thread(scene.box.runtime)
    if head is None or network is None or node is None or runtime is None:
        raise BoxError("the box is no node of a cluster")
    starts = (node.raylet_starts, node.runtime_starts)
    scene.note("struck", CLUSTER, fault.kind)
    healed_s = await _strike_and_heal(fault, scene, head, network)
    took_s = await scene.rejoined(healed_s, starts[0])
    is_in_time = took_s is not None and took_s <= REJOIN_S
    scene.note("rejoined", CLUSTER, fault.kind, "" if took_s else "never", took_s, holds=is_in_time)
    await _is_untouched(fault, scene, head, runtime, starts[1])


async def _strike_and_heal(fault: Fault, scene: Scene, head: Head, network: Namespace) -> float:
    """Return when the fault was lifted; for those that strike once, when they struck."""
    match fault.kind:
        case "raylet-kill" | "raylet-stop":
            raylet = await asyncio.to_thread(scene.box.raylet)
            if raylet is None:
                raise BoxError("there is no raylet")
            is_kill = fault.kind == "raylet-kill"
            raylet.send_signal(signal.SIGKILL if is_kill else signal.SIGSTOP)
            return time.monotonic()
        case "head-kill":
            await asyncio.to_thread(head.kill)
            began = time.monotonic()
            await head.up()
            now = time.monotonic()
            scene.note("lifted", CLUSTER, fault.kind, "the head is up again", now - began)
            return now
        case "cut":
            network.cut()
            try:
                await asyncio.sleep(fault.lasts_s)
            finally:
                network.mend()
            scene.note("lifted", CLUSTER, fault.kind, "", fault.lasts_s)
            return time.monotonic()
        case other:
            raise ValueError(f"no cluster fault '{other}'")


async def _is_untouched(
    fault: Fault, scene: Scene, head: Head, runtime: psutil.Process, starts: int
) -> None:
    """See that labels are as before, and that the runtime is the one it was."""
    has_labels = await head.has_labels()
    found = await asyncio.to_thread(scene.box.runtime)
    node = scene.box.node()
    is_same = found is not None and found.pid == runtime.pid and runtime.is_running()
    is_same = is_same and node is not None and node.runtime_starts == starts
    pid = found.pid if found is not None else None
    scene.note(
        "untouched",
        CLUSTER,
        fault.kind,
        f"labels {'intact' if has_labels else 'LOST'}, runtime {runtime.pid} then {pid}",
        holds=has_labels and is_same,
    )
