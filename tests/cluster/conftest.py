"""What tests of the cluster layer share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A new home; its run folder may lie outside of it."""
    found = Home.at(tmp_path / "home")
    yield found
    shutil.rmtree(found.run, ignore_errors=True)
