from __future__ import annotations

from pathlib import Path

import pytest

from load.chaos import models


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of a fault run, with random weights."""
    made = tmp_path_factory.mktemp("models")
    models.build(made, is_trained=False)
    return made


@pytest.fixture(scope="session")
def subjects(folder: Path) -> dict[str, models.Subject]:
    return models.read(folder)
