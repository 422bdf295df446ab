"""Peer: bare Ray Serve in its fast mode, in a cluster of its own.

Two applications: `ingress` (the model in the ingress replica) and `handle` (an ingress that
passes body and header length through a handle to a model deployment). Mode: throughput
optimised, HAProxy in front (BENCH_SERVE_HAPROXY=1) or the replica's own port (direct ingress).
"""

import asyncio
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import bare
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

MODELS_KEY = "BENCH_MODELS"
ONGOING = 4096


class Model:
    """Both kinds' computation; heavy models leave the event loop."""

    def __init__(self):
        self.sessions = bare.open_sessions()
        self.pool = ThreadPoolExecutor(os.cpu_count())

    async def answer(self, name, body, header_bytes):
        session = self.sessions[name]
        if name != bare.HEAVY:
            return session.answer(body, header_bytes)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.pool, session.answer, body, header_bytes)


async def unpack(request):
    name = request.url.path.split("/")[-2]
    return name, await request.body(), int(request.headers["inference-header-content-length"])


def pack(answer):
    content, length = answer
    return Response(
        content, media_type="application/octet-stream", headers=bare.response_headers(length)
    )


@serve.deployment(max_ongoing_requests=ONGOING, ray_actor_options={"num_cpus": 0.1})
class Ingress(Model):
    async def __call__(self, request: Request):
        return pack(await self.answer(*await unpack(request)))


@serve.deployment(max_ongoing_requests=ONGOING, ray_actor_options={"num_cpus": 0.1})
class Backend(Model):
    pass


@serve.deployment(max_ongoing_requests=ONGOING, ray_actor_options={"num_cpus": 0.1})
class HandleIngress:
    def __init__(self, backend):
        self.answer = backend.answer

    async def __call__(self, request: Request):
        return pack(await self.answer.remote(*await unpack(request)))


def main():
    head = subprocess.Popen(
        [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
            "--node-ip-address=127.0.0.1", f"--port={os.environ['BENCH_GCS_PORT']}",
            f"--dashboard-port={os.environ['BENCH_DASHBOARD_PORT']}",
            f"--temp-dir={os.environ['BENCH_SCRATCH']}", "--num-cpus=2",
            f"--object-store-memory={200 * 2**20}", "--disable-usage-stats",
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        connect(head)
        serve.start(
            proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": bare.PORT}
        )
        logs = {"enable_access_log": False}
        serve.run(Ingress.bind(), name="ingress", route_prefix="/ingress", logging_config=logs)
        handle = HandleIngress.bind(Backend.bind())
        serve.run(handle, name="handle", route_prefix="/handle", logging_config=logs)
        print("replicas are up", flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    finally:
        head.terminate()


def connect(head):
    address = f"127.0.0.1:{os.environ['BENCH_GCS_PORT']}"
    for _ in range(60):
        if head.poll() is not None:
            raise SystemExit("the head did not start")
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
            return
        except ConnectionError:
            signal.sigtimedwait([], 0.5)
    raise SystemExit("the head did not answer")


if __name__ == "__main__":
    main()
