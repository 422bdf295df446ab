"""Peer: a bare ASGI application under uvicorn, the model in the process. The floor of a server."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import bare
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

SESSIONS = bare.open_sessions()
POOL = ThreadPoolExecutor(os.cpu_count())


async def infer(request):
    session = SESSIONS[request.path_params["model"]]
    header_bytes = int(request.headers["inference-header-content-length"])
    body = await request.body()
    if session.name == bare.HEAVY:
        loop = asyncio.get_running_loop()
        content, length = await loop.run_in_executor(POOL, session.answer, body, header_bytes)
    else:
        content, length = session.answer(body, header_bytes)
    return Response(
        content, media_type="application/octet-stream", headers=bare.response_headers(length)
    )


app = Starlette(routes=[Route("/v2/models/{model}/infer", infer, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=bare.PORT, log_level="warning", access_log=False)
