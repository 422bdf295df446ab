"""Peer: LitServe, one worker, binary bodies through its dependency injection.

Its `decode_request` sees JSON or forms unless the annotation says otherwise; FastAPI's `Depends`
gives it the body as it came.
"""

from typing import Annotated

import bare
import litserve
from fastapi import Depends, Request, Response


async def raw(request: Request):
    return await request.body(), int(request.headers["inference-header-content-length"])


class Model(litserve.LitAPI):
    def __init__(self, name):
        super().__init__(api_path=f"/v2/models/{name}/infer")
        self.name = name

    def setup(self, device):
        self.session = bare.Session(self.name, bare.MODELS[self.name])

    def decode_request(self, request: Annotated[tuple, Depends(raw)]):
        return bare.decode(*request)

    def predict(self, feed):
        return self.session.run(feed)

    def encode_response(self, output) -> Response:
        content, length = self.session.encode(output)
        return Response(
            content, media_type="application/octet-stream", headers=bare.response_headers(length)
        )


if __name__ == "__main__":
    server = litserve.LitServer(
        [Model(name) for name in bare.MODELS],
        accelerator="cpu",
        workers_per_device=1,
        fast_queue=True,  # faster here than its default
    )
    server.run(
        host="127.0.0.1",
        port=bare.PORT,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
