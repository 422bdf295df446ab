"""Talking to the running gateway the way any user would: through `tritonclient` with a token."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from numpy.typing import NDArray

from edge_runtime.protocol.context import SITE_HEADER, TIER_HEADER
from edge_runtime.protocol.service import REASON_PARAMETER, RUNG_PARAMETER, TARGET_PARAMETER

Images = NDArray[np.float32]
Logits = NDArray[np.float32]

INPUT = "image"
OUTPUT = "logits"


@dataclass(frozen=True, slots=True)
class Answer:
    """One prediction and where it was made; rung: of an edge box's ladder, if it said so."""

    logits: Logits
    target: str
    reason: str
    rung: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the gateway is and the token to call it with."""

    rest: str
    grpc: str
    token: str

    def headers(self, tier: str | None, site: str | None) -> dict[str, str]:
        wanted = {"authorization": f"Bearer {self.token}"}
        if tier is not None:
            wanted[TIER_HEADER] = tier
        if site is not None:
            wanted[SITE_HEADER] = site
        return wanted


class RestCaller:
    """Binary tensors over REST."""

    protocol = "REST"

    def __init__(self, access: Access) -> None:
        self._access = access
        self._client = triton_http.InferenceServerClient(access.rest, network_timeout=60.0)

    def predict(
        self, model: str, images: Images, *, tier: str | None = None, site: str | None = None
    ) -> Answer:
        tensor = triton_http.InferInput(INPUT, list(images.shape), "FP32")
        tensor.set_data_from_numpy(images, binary_data=True)
        result = self._client.infer(
            model,
            [tensor],
            outputs=[triton_http.InferRequestedOutput(OUTPUT, binary_data=True)],
            headers=self._access.headers(tier, site),
        )
        parameters = result.get_response()["parameters"]
        return Answer(
            result.as_numpy(OUTPUT),
            parameters[TARGET_PARAMETER],
            parameters[REASON_PARAMETER],
            parameters.get(RUNG_PARAMETER, ""),
        )

    def close(self) -> None:
        self._client.close()


class GrpcCaller:
    """The same over gRPC."""

    protocol = "gRPC"

    def __init__(self, access: Access) -> None:
        self._access = access
        self._client = triton_grpc.InferenceServerClient(access.grpc)

    def predict(
        self, model: str, images: Images, *, tier: str | None = None, site: str | None = None
    ) -> Answer:
        tensor = triton_grpc.InferInput(INPUT, list(images.shape), "FP32")
        tensor.set_data_from_numpy(images)
        result = self._client.infer(
            model,
            [tensor],
            outputs=[triton_grpc.InferRequestedOutput(OUTPUT)],
            headers=self._access.headers(tier, site),
            client_timeout=60.0,
        )
        parameters = result.get_response().parameters
        return Answer(
            result.as_numpy(OUTPUT),
            parameters[TARGET_PARAMETER].string_param,
            parameters[REASON_PARAMETER].string_param,
            parameters[RUNG_PARAMETER].string_param if RUNG_PARAMETER in parameters else "",
        )

    def close(self) -> None:
        self._client.close()


Caller = RestCaller | GrpcCaller


def command(arguments: Sequence[str], *, show: bool = False) -> str:
    """Run `prime-spark ...` as a user would; returns what it printed.

    Raises CalledProcessError (its stderr is what the user would have seen).
    """
    done = subprocess.run(
        [sys.executable, "-m", "cluster.cli.main", *arguments],
        check=True,
        text=True,
        stdout=None if show else subprocess.PIPE,
        stderr=None if show else subprocess.PIPE,
    )
    return "" if show else done.stdout


def command_json(arguments: Sequence[str]) -> Mapping[str, Any]:
    """Run `prime-spark ... --json` and read its answer."""
    document: Mapping[str, Any] = json.loads(command([*arguments, "--json"]))
    return document
