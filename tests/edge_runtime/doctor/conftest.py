from __future__ import annotations

from pathlib import Path

import pytest

from tests.edge_runtime.doctor.pi import Pi


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    """A Raspberry Pi 5 with a Hailo-8, and nothing wrong with it."""
    return Pi(tmp_path / "root")
