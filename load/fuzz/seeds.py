"""The valid requests that attacks start from: one for each model that the server has ready."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np

from edge_runtime.protocol.datatypes import NUMPY

MAX_FREE: Final = 2  # free dimensions get this size
MAX_ELEMENTS: Final = 10_000  # bending more, as JSON, would take longer than serving it
TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class SeedTensor:
    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def raw(self) -> bytes:
        count = int(np.prod(self.shape))
        if self.datatype == "BYTES":
            return b"\x01\x00\x00\x00a" * count
        return bytes(count * NUMPY[self.datatype].itemsize)

    @property
    def numbers(self) -> list[Any]:
        count = int(np.prod(self.shape))
        zero: Any = {"BYTES": "a", "BOOL": False}.get(self.datatype, 0)
        return [zero] * count


@dataclass(frozen=True, slots=True)
class Seed:
    """A model and inputs that it takes."""

    model: str
    inputs: tuple[SeedTensor, ...]

    def document(self, *, is_binary: bool) -> dict[str, Any]:
        """Return the JSON part of a request."""
        inputs: list[dict[str, Any]] = []
        for tensor in self.inputs:
            entry: dict[str, Any] = {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
            }
            if is_binary:
                entry["parameters"] = {"binary_data_size": len(tensor.raw)}
            else:
                entry["data"] = tensor.numbers
            inputs.append(entry)
        return {"id": "fuzz", "inputs": inputs, "outputs": [], "parameters": {}}

    @property
    def elements(self) -> int:
        return sum(int(np.prod(tensor.shape)) for tensor in self.inputs)

    @property
    def chunks(self) -> bytes:
        return b"".join(tensor.raw for tensor in self.inputs)


def find_seeds(url: str, headers: Mapping[str, str]) -> Sequence[Seed]:
    """Ask the server what it serves; models with large inputs are left out.

    Raises httpx.HTTPError, or ValueError if nothing is left.
    """
    with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S) as http:
        index = http.post("/v2/repository/index", content=json.dumps({"ready": True}))
        index.raise_for_status()
        names = sorted({entry["name"] for entry in index.json()})
        found = [_seed(http.get(f"/v2/models/{name}").raise_for_status().json()) for name in names]
    small = [seed for seed in found if seed.elements <= MAX_ELEMENTS]
    if not small:
        raise ValueError(f"{url} has no model ready whose inputs are small enough to bend")
    return small


def _seed(metadata: Mapping[str, Any]) -> Seed:
    return Seed(
        metadata["name"],
        tuple(
            SeedTensor(
                entry["name"],
                entry["datatype"],
                tuple(MAX_FREE if dim < 0 else dim for dim in entry["shape"]),
            )
            for entry in metadata["inputs"]
        ),
    )
