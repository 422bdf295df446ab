"""The experiment itself: cold starts one at a time, then paired rounds over everybody.

A round measures every subject once, one after the other, and the next round begins again, so
whatever the machine does in the meantime happens to all. Servers that are not being measured
are stopped (SIGSTOP): their background work would go to somebody else's account.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from load.bench.models import BenchModel
from load.bench.probe import check, is_answering
from load.bench.servers import Server, Usage
from load.bench.subjects import HOST, Candidate, Subject
from load.bench.worker import Job, Measured

SETTLE_S: Final = 1.0
WORKER_SLACK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. Seconds of warming and measuring are for each measurement."""

    rounds: int
    clients: tuple[int, ...]
    cold_starts: int
    warm_s: float
    measure_s: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """One subject in one round. server_cpu_ms: processor time of its server for each answer."""

    model: str
    clients: int
    round: int
    subject: str
    measured: Measured
    server_cpu_ms: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that was measured; usage: at rest after the start, and after the rounds."""

    cold_start_s: Mapping[str, Sequence[float]]
    at_rest: Mapping[str, Usage]
    after: Mapping[str, Usage]
    measurements: Sequence[Measurement]

    def document(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return asdict(self)


class MeasurementFailed(Exception):
    """A load generator ended with an error or saw no answers; the message says whose."""


def run(
    candidates: Sequence[Candidate],
    models: Sequence[BenchModel],
    plan: Plan,
    scratch: Path,
    say: Callable[[str], None],
) -> Outcome:
    """Run the experiment. Raises DidNotStart, MeasurementFailed, ValueError (a wrong answer)."""
    files = _write_requests(candidates, models, scratch)
    cold: dict[str, list[float]] = {}
    at_rest: dict[str, Usage] = {}
    measurements: list[Measurement] = []
    with _stopping() as servers:
        for turn in range(plan.cold_starts):
            for candidate in candidates:
                if candidate.launch is None:
                    continue
                server = Server(candidate.launch, scratch / f"{candidate.name}.log")
                servers[candidate.name] = server
                took_s = server.wait_until(partial(_is_ready, candidate, models))
                cold.setdefault(candidate.name, []).append(took_s)
                say(f"cold start {turn + 1}/{plan.cold_starts}  {candidate.name}: {took_s:.1f} s")
                for subject, model in _pairs(candidate, models):
                    check(subject, model)
                if turn == plan.cold_starts - 1:
                    time.sleep(SETTLE_S)
                    at_rest[candidate.name] = server.usage()
                    server.pause()
                else:
                    servers.pop(candidate.name).stop()
        for model in models:
            for clients in plan.clients:
                for number in range(plan.rounds):
                    for candidate in candidates:
                        measurements += _measure(
                            candidate, servers.get(candidate.name), model, clients, number, plan,
                            files,
                        )  # fmt: skip
                    say(f"{model.name}, {clients} clients: round {number + 1}/{plan.rounds}")
        after = {name: server.usage() for name, server in servers.items()}
    return Outcome(cold, at_rest, after, measurements)


def _measure(
    candidate: Candidate,
    server: Server | None,
    model: BenchModel,
    clients: int,
    number: int,
    plan: Plan,
    files: Mapping[tuple[str, str], Path],
) -> Iterator[Measurement]:
    """Measure a candidate's subjects while its server runs."""
    subjects = [s for s in candidate.subjects if model.name in s.models]
    if server is None:
        subjects = subjects if clients == 1 else []
    else:
        server.resume()
        time.sleep(SETTLE_S)
    for subject in subjects:
        job = Job(
            protocol=subject.protocol,
            host=HOST,
            port=subject.port,
            request=str(files[(subject.name, model.name)]),
            clients=clients,
            warm_s=plan.warm_s,
            measure_s=plan.measure_s,
            metadata=tuple(subject.headers.items()) if subject.protocol == "grpc" else (),
            artifact=str(model.artifact),
        )
        before_s = server.cpu_s() if server is not None else 0.0
        measured = _in_worker(job, f"{subject.name}, {model.name}, {clients} clients")
        cpu_ms = None
        if server is not None:
            # Warming up counts too, so the time is shared out over the answers of both spans.
            share = plan.measure_s / (plan.measure_s + plan.warm_s)
            cpu_ms = (server.cpu_s() - before_s) * share / measured.answers * 1e3
        yield Measurement(model.name, clients, number, subject.name, measured, cpu_ms)
    if server is not None:
        server.pause()


def _in_worker(job: Job, who: str) -> Measured:
    command = [sys.executable, "-m", "load.bench.worker"]
    done = subprocess.run(
        command,
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        timeout=job.warm_s + job.measure_s + WORKER_SLACK_S,
        check=False,
    )
    if done.returncode != 0:
        raise MeasurementFailed(f"{who}: {done.stderr.strip()[-600:]}")
    measured = Measured(**json.loads(done.stdout))
    if not measured.answers:
        raise MeasurementFailed(f"{who}: {measured.first_failure}")
    return measured


def _is_ready(candidate: Candidate, models: Sequence[BenchModel]) -> bool:
    return all(is_answering(subject, model) for subject, model in _pairs(candidate, models))


def _pairs(
    candidate: Candidate, models: Sequence[BenchModel]
) -> Iterator[tuple[Subject, BenchModel]]:
    for model in models:
        for subject in candidate.subjects:
            if model.name in subject.models:
                yield subject, model


def _write_requests(
    candidates: Sequence[Candidate], models: Sequence[BenchModel], scratch: Path
) -> Mapping[tuple[str, str], Path]:
    """Write each subject's request for each model into a file for the load generator."""
    files = {}
    for candidate in candidates:
        for subject, model in _pairs(candidate, models):
            path = scratch / f"{subject.name}-{model.name}.request"
            if subject.protocol == "onnx":
                with path.open("wb") as file:
                    np.save(file, model.payload.data)
            else:
                path.write_bytes(subject.request(model))
            path.chmod(0o600)  # it holds a token
            files[(subject.name, model.name)] = path
    return files


@contextmanager
def _stopping() -> Iterator[dict[str, Server]]:
    """Hold running servers; stop them all at the end, whatever happens."""
    servers: dict[str, Server] = {}
    try:
        yield servers
    finally:
        for server in servers.values():
            server.stop()
