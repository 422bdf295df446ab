from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.protocol.service import Limits
from tests.contract.live import LiveServer, serving
from tests.contract.models import write_models

MIB = 1024 * 1024
LIMITS = Limits(
    max_body_bytes=4 * MIB,
    max_json_bytes=MIB,
    max_inflight_bytes=32 * MIB,
    max_tensors=8,
    default_timeout_s=20.0,
    max_timeout_s=30.0,
    body_timeout_s=2.0,
)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One model server for the suites; `add_sub` version 2 and `broken` are known, not loaded."""
    folder: Path = tmp_path_factory.mktemp("models")

    def loads(version: str, model: str) -> bool:
        return version == "1" and model != "broken"

    with serving(
        write_models(folder), LIMITS, lambda source: loads(source.version, source.model)
    ) as live:
        yield live
