"""The floor of a server: bare starlette, uvicorn and onnxruntime, nothing of this project.

    python -m load.edge.floor PORT '{"digits": "digits.onnx"}'

Reads one binary tensor, runs it, writes one back; no checks, no credentials, no metrics. A model
above a millisecond is computed on a thread, so that the event loop goes on.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as in ours

import numpy as np
import onnxruntime  # noqa: TID251
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

HEAVY_S: Final = 0.001
HEADER_LENGTH: Final = "inference-header-content-length"


class Model:
    """One session of one thread."""

    def __init__(self, name: str, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._name = name
        self._session: Any = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._output = self._session.get_outputs()[0].name
        self.is_heavy = self._takes_s() > HEAVY_S

    def answer(self, body: bytes, header_bytes: int) -> Response:
        tensor = orjson.loads(body[:header_bytes])["inputs"][0]
        data = np.frombuffer(body, np.float32, offset=header_bytes).reshape(tensor["shape"])
        answer = self._session.run([self._output], {tensor["name"]: data})[0]
        raw = answer.tobytes()
        output = {
            "name": self._output,
            "datatype": "FP32",
            "shape": answer.shape,
            "parameters": {"binary_data_size": len(raw)},
        }
        header = orjson.dumps({"model_name": self._name, "outputs": [output]})
        return Response(
            header + raw,
            media_type="application/octet-stream",
            headers={HEADER_LENGTH: str(len(header))},
        )

    def _takes_s(self) -> float:
        (node,) = self._session.get_inputs()
        feed = {node.name: np.zeros([1, *node.shape[1:]], np.float32)}
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            self._session.run(None, feed)
            taken.append(time.perf_counter() - began)
        return min(taken)


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM."""
    models = {name: Model(name, path) for name, path in json.loads(arguments[1]).items()}
    pool = ThreadPoolExecutor(os.cpu_count())

    async def infer(request: Request) -> Response:
        model = models[request.path_params["model"]]
        body, header_bytes = await request.body(), int(request.headers[HEADER_LENGTH])
        if not model.is_heavy:
            return model.answer(body, header_bytes)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, model.answer, body, header_bytes)

    async def ready(request: Request) -> Response:
        return Response()

    app = Starlette(
        routes=[
            Route("/v2/health/ready", ready),
            Route("/v2/models/{model}/infer", infer, methods=["POST"]),
        ]
    )
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(arguments[0]),
        loop="asyncio",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
