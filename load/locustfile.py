"""Mixed traffic as many users would make it: `make load`, or `locust -f load/locustfile.py`.

Users ask one model (PRIME_SPARK_LOAD_MODEL, default digits) in JSON and in binary, one row and
batches, and now and then look at its metadata, the repository and the server. The token comes
from PRIME_SPARK_TOKEN or from `prime-spark token`; without --host, the running gateway is found
by `prime-spark status`. With PRIME_SPARK_LOAD_REQUESTS=FILE each request to the model is written
to that file, as a trace that `prime-spark what-if --trace FILE` replays.
"""

from __future__ import annotations

import asyncio
import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from locust import FastHttpUser, between, events, task

from load.access import NoGateway, example, find
from load.oip import HEADER_LENGTH, Payload, binary_body, infer_path, json_body
from load.simulator.readers import COLUMNS, row
from load.simulator.recording import OK, Recorded

MODEL = os.environ.get("PRIME_SPARK_LOAD_MODEL", "digits")
REQUESTS = os.environ.get("PRIME_SPARK_LOAD_REQUESTS")
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
        self.client.post(
            infer_path(MODEL),
            data=body,  # type: ignore[arg-type]
            headers=headers,
            name=name,
            context={"model": MODEL, "bytes": part.data.nbytes},
        )

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


class RequestFile:
    """Writes each request that is named by its context to a table; `close` at the end."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("w", newline="", encoding="utf-8")  # noqa: SIM115
        self._rows = csv.writer(self._file)
        self._rows.writerow(COLUMNS)

    def saw(
        self,
        start_time: float,
        response_time: float,
        context: Mapping[str, Any],
        exception: Exception | None = None,
        **_: Any,
    ) -> None:
        """Write a request, as Locust tells of it. response_time: in milliseconds."""
        if "model" in context:
            self._rows.writerow(
                row(
                    Recorded(
                        start_time,
                        context["bytes"],
                        model=context["model"],
                        taken_s=response_time / 1e3,
                        outcome=OK if exception is None else "failed",
                    )
                )
            )

    def close(self, **_: Any) -> None:
        self._file.close()


if REQUESTS:
    requests = RequestFile(REQUESTS)
    events.request.add_listener(requests.saw)  # type: ignore[no-untyped-call]
    events.quit.add_listener(requests.close)  # type: ignore[no-untyped-call]
