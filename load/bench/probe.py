"""One request to a subject, to see that it answers and that the answer is right."""

from __future__ import annotations

import asyncio

import grpc

from load.bench.models import BenchModel
from load.bench.subjects import HOST, Subject
from load.bench.worker import GRPC_METHOD
from load.http1 import Response, connect
from load.oip import read_grpc_output, read_output

TIMEOUT_S = 20.0
TARGET_HEADER = b"prime-spark-target"


class WrongTarget(Exception):
    """The gateway answered from another place than the one asked for."""


def is_answering(subject: Subject, model: BenchModel) -> bool:
    """Tell whether a request is answered well; any failure means not yet."""
    try:
        check(subject, model)
    except (OSError, ValueError, TimeoutError, grpc.RpcError, WrongTarget):
        return False
    return True


def check(subject: Subject, model: BenchModel) -> None:
    """Raise ValueError, OSError, grpc.RpcError or WrongTarget unless the answer is right."""
    if subject.protocol == "onnx":
        return
    request = subject.request(model)
    if subject.protocol == "grpc":
        with grpc.insecure_channel(f"{HOST}:{subject.port}") as channel:
            call = channel.unary_unary(GRPC_METHOD)
            metadata = tuple(subject.headers.items())
            model.check(read_grpc_output(call(request, timeout=TIMEOUT_S, metadata=metadata)))
        return
    response = asyncio.run(_ask(subject, request))
    model.check(read_output(response))
    wanted = subject.headers.get("prime-spark-tier")
    target = response.headers.get(TARGET_HEADER, b"").decode()
    if wanted is not None and not target.startswith(wanted):
        raise WrongTarget(f"{subject.name} was answered by '{target}'")


async def _ask(subject: Subject, request: bytes) -> Response:
    async with asyncio.timeout(TIMEOUT_S):
        connection = await connect(HOST, subject.port)
        try:
            return await connection.ask(request)
        finally:
            connection.close()
