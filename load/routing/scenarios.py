"""Worlds to learn in, as they are and ones that change, and a model that is told lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import numpy as np

from load.simulator.world import PriceChange, Throttle, World, reference
from policies.routing.context import Context
from policies.routing.learner import Foreseen, Learner

SWING_S: Final = 10.0
MISLED: Final = range(2500, 5000)  # requests of a router


class Misled(Learner):
    """A model that for a while is told the contrary of whatever it says, the worst there can be."""

    __slots__ = ("_said",)

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[int, tuple[Context, Foreseen]] = {}

    def sent(self, ticket: int, found: Context) -> None:
        if ticket in MISLED:
            self._said[ticket] = (found, self.foresee([found])[0])
        super().sent(ticket, found)

    def ended(self, ticket: int) -> None:
        self._said.pop(ticket, None)
        super().ended(ticket)

    def saw(self, ticket: int, place_s: float, *, is_late: bool) -> None:
        said = self._said.pop(ticket, None)
        if said is not None:
            found, (expected_s, late) = said
            is_late = late < found.late
            is_longer = expected_s - found.way_s > found.place_s
            place_s = found.place_s * (0.5 if is_longer else 2.0)
        super().saw(ticket, place_s, is_late=is_late)


def throttled(duration_s: float) -> World:
    """Return the fleet of the benchmarks: one box is slow for a minute, time and again."""
    world = reference()
    begins = np.arange(60.0, duration_s, 240.0).tolist()
    slow = tuple(Throttle(world.nodes[0].name, at, at + 60.0, 3.0) for at in begins)
    return replace(world, throttles=slow)


def drifting(duration_s: float) -> World:
    """Return one in which a box and half of the cloud become slow, and moving bytes cheaper.

    A box is half as fast from a third of the time on, one replica in the cloud from a half, and
    from two thirds on bytes to the cloud cost half as much.
    """
    world = throttled(duration_s)
    slow = (
        Throttle(world.nodes[1].name, duration_s / 3, np.inf, 2.0),
        Throttle("cloud-1", duration_s / 2, np.inf, 2.0),
    )
    cheaper = tuple(
        PriceChange(node.name, 2 * duration_s / 3, node.usd_per_s, 0.5 * node.usd_per_byte)
        for node in world.nodes
        if node.tier == "cloud"
    )
    return replace(world, throttles=(*world.throttles, *slow), price_changes=cheaper)


def swinging(duration_s: float) -> World:
    """Return one in which, from a third of the time on, edge and cloud take turns at being slow.

    They change places every `SWING_S`: what was learned in one half is wrong in the other.
    """
    world = reference()
    begins = np.arange(duration_s / 3, duration_s, SWING_S).tolist()
    turns = tuple(
        Throttle(node.name, at, at + SWING_S, 2.0)
        for turn, at in enumerate(begins)
        for node in world.nodes
        if (node.tier == "cloud") == (turn % 2 == 0)
    )
    return replace(world, throttles=turns)


WORLDS: Final[Mapping[str, Callable[[float], World]]] = MappingProxyType(
    {"throttled": throttled, "drifting": drifting, "swinging": swinging}
)
