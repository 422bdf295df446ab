"""A network in the shape of ResNet-18 with random weights: what a heavy model costs.

He et al., "Deep Residual Learning for Image Recognition" (2015), table 1, 18 layers: the same
operations, sizes and 11.7 million parameters (about 45 MB), so that latency, memory and
batching are those of the real network. Its answers mean nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from train.zoo.export import Built, check_parity, export, parameters
from train.zoo.fit import reproducible

INPUT: Final = "image"
SIDE: Final = 224
CLASSES: Final = 1000
SEED: Final = 18

_STAGES: Final = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels, first stride
_BLOCKS: Final = 2  # in each stage


class ResNet18(nn.Module):
    """image [n, 3, 224, 224] to logits [n, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            _convolution(3, 64, 7, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        channels = 64
        for outputs, stride in _STAGES:
            for block in range(_BLOCKS):
                layers.append(_Residual(channels, outputs, stride if block == 0 else 1))
                channels = outputs
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classify = nn.Linear(channels, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.features(image))
        return logits


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _convolution(inputs, outputs, 3, stride=stride),
            nn.ReLU(),
            _convolution(outputs, outputs, 3, stride=1),
        )
        is_same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if is_same else _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


def network() -> nn.Module:
    """Return the network in evaluation mode; the same weights on every call."""
    with reproducible(SEED):
        made = ResNet18()
    return made.eval()


def sample(rows: int) -> Tensor:
    """Return made-up images [rows, 3, 224, 224], normally distributed as after normalisation."""
    return torch.randn(rows, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(SEED))


def build(path: Path) -> Built:
    """Write the ONNX file and compare it with torch on a few images. Raises Unfit."""
    made = network()
    signature = export(made, sample(2), INPUT, path)
    parity = check_parity(made, path, INPUT, sample(4))
    return Built(
        signature,
        {"parity_max_difference": parity.max_difference, "parameters": parameters(made)},
    )


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )
