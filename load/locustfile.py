"""Mixed traffic as many users would make it: `make load`, or `locust -f load/locustfile.py`.

Users ask one model (PRIME_SPARK_LOAD_MODEL, default digits) in JSON and in binary, one row and
batches, and now and then look at its metadata, the repository and the server. The token comes
from PRIME_SPARK_TOKEN or from `prime-spark token`; without --host, the running gateway is found
by `prime-spark status`.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from locust import FastHttpUser, between, events, task

from load.access import NoGateway, example, find
from load.oip import HEADER_LENGTH, Payload, binary_body, infer_path, json_body

MODEL = os.environ.get("PRIME_SPARK_LOAD_MODEL", "digits")
ROWS = 32


class MixedUser(FastHttpUser):
    """Asks, waits a moment, asks again."""

    wait_time = between(0.01, 0.2)
    credential: dict[str, str]
    payload: Payload

    @task(8)
    def one_row_binary(self) -> None:
        self._infer("binary, 1 row", 1, is_binary=True)

    @task(4)
    def one_row_json(self) -> None:
        self._infer("JSON, 1 row", 1, is_binary=False)

    @task(2)
    def batch_binary(self) -> None:
        self._infer("binary, 8 rows", 8, is_binary=True)

    @task(1)
    def large_batch_binary(self) -> None:
        self._infer(f"binary, {ROWS} rows", ROWS, is_binary=True)

    @task(1)
    def metadata(self) -> None:
        self._get(f"/v2/models/{MODEL}", "model metadata")

    @task(1)
    def ready(self) -> None:
        self._get(f"/v2/models/{MODEL}/ready", "model ready")

    @task(1)
    def repository(self) -> None:
        self.client.post(
            "/v2/repository/index", json={}, headers=self.credential, name="repository index"
        )

    @task(1)
    def server(self) -> None:
        self._get("/v2", "server metadata")

    def _infer(self, name: str, rows: int, *, is_binary: bool) -> None:
        part = Payload(MODEL, self.payload.input, self.payload.data[:rows])
        headers = dict(self.credential)
        if is_binary:
            body, header_bytes = binary_body(part)
            headers["content-type"] = "application/octet-stream"
            headers[HEADER_LENGTH] = str(header_bytes)
        else:
            body = json_body(part)
            headers["content-type"] = "application/json"
        # FastHttpSession sends bytes as they are; only its annotation leaves them out.
        self.client.post(infer_path(MODEL), data=body, headers=headers, name=name)  # type: ignore[arg-type]

    def _get(self, path: str, name: str) -> None:
        self.client.get(path, headers=self.credential, name=name)


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Any, **_: Any) -> None:
    """Find gateway, token and input once for all users; ends the run when there are none."""
    try:
        access = find()
        payload = asyncio.run(example(access, MODEL, ROWS))
    except (NoGateway, OSError) as error:
        print(error)
        environment.process_exit_code = 1
        environment.runner.quit()
        return
    MixedUser.credential = access.headers()
    MixedUser.payload = payload
    if environment.host is None:
        environment.host = f"http://{access.authority}"
