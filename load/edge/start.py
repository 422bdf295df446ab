"""From exec to ready, and the memory of the process: at rest, and after requests.

Each round starts `prime-spark edge run` with the light model, and the floor (bare starlette,
uvicorn and onnxruntime) with the same, in turns of who is first. Time counts from before the
process is made to the first 200 of `/v2/health/ready`, asked for every 5 ms. A start that does
not count has made keys and compiled modules before. Memory is read from /proc after a rest, then
again after requests on one connection and another rest. MB are 10^6 bytes; the marks are in
these, the smaller ones.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from load.bench.models import BenchModel
from load.edge.box import HOST, Box, Floor, Server
from load.edge.marks import Found, Mark, Verdict, judge
from load.edge.memory import MB, MIB, Memory, processor_s, read
from load.edge.stage import Stage
from load.http1 import connect
from load.oip import binary_request, read_output

NAME: Final = "start"
TITLE: Final = "Start and memory"
READY: Final = Mark(NAME, "ready after, median of starts", "s", "at_most", 0.6)
RESTING: Final = Mark(NAME, "RSS at rest after the start, median", "MB", "at_most", 110.0)
AFTER: Final = Mark(NAME, "RSS at rest after the requests, median", "MB", "at_most", 110.0)
OURS: Final = "prime-spark edge run"
FLOOR: Final = "bare starlette, uvicorn, onnxruntime"


@dataclass(frozen=True, slots=True)
class Start:
    """One process. cpu_s: of the processor until it was ready; rest, after: before the requests
    and behind them.
    """

    ready_s: float
    cpu_s: float
    rest: Memory
    after: Memory


def measure(stage: Stage) -> dict[str, Any]:
    """Return every start, by who was started."""
    model = stage.models.light
    box = Box(stage.scratch / "start")
    box.install_onnx(model)
    floor = Floor(stage.scratch / "floor.log", model)
    token = {"authorization": f"Bearer {_once(box)}"}
    _once(floor)
    who: list[tuple[str, Server, Mapping[str, str]]] = [(OURS, box, token), (FLOOR, floor, {})]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name, _, _ in who}
    for number in range(stage.plan.rounds):
        for name, server, headers in who if number % 2 else reversed(who):
            found[name].append(asdict(_start(stage, server, headers, model)))
        stage.say(f"start: round {number + 1}/{stage.plan.rounds}")
    return {"starts": found}


def judged(found: Mapping[str, Any]) -> list[Verdict]:
    starts: Sequence[Mapping[str, Any]] = found["starts"][OURS]
    return [
        judge(READY, Found.median([start["ready_s"] for start in starts])),
        judge(RESTING, Found.median([start["rest"]["rss"] / MB for start in starts])),
        judge(AFTER, Found.median([start["after"]["rss"] / MB for start in starts])),
    ]


def page(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield (
        "| process | ready s (least to most) | of the processor until then s "
        "| RSS at rest MB (MiB) | RSS after requests MB (MiB) "
        "| of which anonymous, files MB | PSS after MB | peak RSS MB | threads |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, starts in found["starts"].items():
        ready = [start["ready_s"] for start in starts]

        def middle(when: str, what: str, of: Sequence[Any] = starts) -> float:
            return float(statistics.median(start[when][what] for start in of))

        cells = [
            name,
            f"{statistics.median(ready):.2f} ({min(ready):.2f} to {max(ready):.2f})",
            f"{statistics.median(start['cpu_s'] for start in starts):.2f}",
            _both(middle("rest", "rss")),
            _both(middle("after", "rss")),
            f"{middle('after', 'anon') / MB:.1f}, {middle('after', 'file') / MB:.1f}",
            f"{middle('after', 'pss') / MB:.1f}",
            f"{middle('after', 'peak') / MB:.1f}",
            f"{middle('after', 'threads'):.0f}",
        ]
        yield "| " + " | ".join(cells) + " |"


def _both(size: float) -> str:
    return f"{size / MB:.1f} ({size / MIB:.1f})"


def _once(server: Server) -> str:
    """Start and end it; return a token where it needs one."""
    with server:
        return server.token() if isinstance(server, Box) else ""


def _start(stage: Stage, server: Server, headers: Mapping[str, str], model: BenchModel) -> Start:
    with server:
        cpu_s = processor_s(server.pid)
        time.sleep(stage.plan.settle_s)
        rest = read(server.pid)
        request = binary_request(model.payload, server.authority, headers)
        asyncio.run(ask(server.port, request, stage.plan.requests, model))
        time.sleep(stage.plan.settle_s)
        return Start(server.ready_s, cpu_s, rest, read(server.pid))


async def ask(port: int, request: bytes, count: int, model: BenchModel) -> None:
    """Send one after the other. Raises ValueError for a wrong answer, ConnectionError."""
    connection = await connect(HOST, port)
    for _ in range(count):
        model.check(read_output(await connection.ask(request)))
    connection.close()
