"""A perceptron 64-256-256-10 on flattened digits: what a call costs when computing is cheap.

Its 85 thousand parameters take some microseconds, so a benchmark with it measures the server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from train.zoo.digits import CLASSES, Digits, Images
from train.zoo.export import Built, check_parity, export, parameters
from train.zoo.fit import Progress, Recipe, fit, reproducible

INPUT: Final = "x"
FEATURES: Final = 64
HIDDEN: Final = 256
RECIPE: Final = Recipe(seed=7, epochs=40, batch_size=64, learning_rate=0.003)


class DigitsMlp(nn.Module):
    """x [n, 64] to logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def features(images: Images) -> Images:
    """Return images [n, 1, 8, 8] as rows [n, 64]."""
    return images.reshape(len(images), FEATURES)


def train(data: Digits, progress: Progress, recipe: Recipe = RECIPE) -> nn.Module:
    """Return a network trained on the training split; the same one on every call."""
    with reproducible(recipe.seed):
        network = DigitsMlp()
        rows = torch.from_numpy(features(data.train.images))
        fit(network, rows, torch.from_numpy(data.train.labels), recipe, progress)
    return network


def build(data: Digits, path: Path, progress: Progress) -> Built:
    """Train, write the ONNX file and measure it on the test split. Raises Unfit."""
    network = train(data, progress)
    rows = torch.from_numpy(features(data.test.images))
    signature = export(network, rows[:2], INPUT, path)
    parity = check_parity(network, path, INPUT, rows)
    return Built(
        signature,
        {
            "accuracy": float((parity.logits.argmax(axis=1) == data.test.labels).mean()),
            "parity_max_difference": parity.max_difference,
            "parameters": parameters(network),
        },
    )
