"""Training of the zoo's classifiers: the same weights on every run of one machine.

Adam with a one-cycle learning rate (Smith and Topin, 2018), cross entropy, shuffled batches.
`reproducible` fixes what would make two runs differ: random numbers, the number of threads
(sums are split among them) and algorithms that are not deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Progress = Callable[[int, int], None]
"""Told after each step: steps done, steps in all."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a classifier is trained; learning_rate is the peak of the cycle."""

    seed: int
    epochs: int
    batch_size: int
    learning_rate: float


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Make torch repeat itself inside, and leave its settings as they were."""
    threads = torch.get_num_threads()
    is_strict = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(is_strict)


def fit(
    network: nn.Module, inputs: Tensor, labels: Tensor, recipe: Recipe, progress: Progress
) -> None:
    """Train a network in place and leave it in evaluation mode."""
    per_epoch = -(-len(inputs) // recipe.batch_size)
    steps = recipe.epochs * per_epoch
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=recipe.learning_rate, total_steps=steps
    )
    loss_of = nn.CrossEntropyLoss()
    network.train()
    done = 0
    for _ in range(recipe.epochs):
        for rows in torch.split(torch.randperm(len(inputs)), recipe.batch_size):
            optimiser.zero_grad()
            loss = loss_of(network(inputs[rows]), labels[rows])
            loss.backward()
            optimiser.step()
            schedule.step()
            done += 1
            progress(done, steps)
    network.eval()
