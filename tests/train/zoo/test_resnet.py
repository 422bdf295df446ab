from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.train.zoo.conftest import run
from train.zoo import resnet
from train.zoo.export import Built


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Built]:
    path = tmp_path_factory.mktemp("resnet") / "model.onnx"
    return path, resnet.build(path)


def test_it_is_as_large_as_the_real_network(made: tuple[Path, Built]) -> None:
    path, built = made
    assert built.metrics["parameters"] == 11_689_512  # torchvision's resnet18 has as many
    assert 40e6 < path.stat().st_size < 50e6
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_it_classifies_one_or_more_images_into_a_thousand(made: tuple[Path, Built]) -> None:
    images = resnet.sample(3).numpy()
    together = run(made[0], "image", images)
    assert together.shape == (3, 1000)
    assert np.isfinite(together).all()
    assert np.allclose(run(made[0], "image", images[:1]), together[:1], atol=1e-4)


def test_its_weights_are_the_same_on_every_call() -> None:
    first, second = resnet.network().state_dict(), resnet.network().state_dict()
    assert all(bool((first[name] == second[name]).all()) for name in first)
