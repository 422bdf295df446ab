"""What breaks, and when: drawn from a seed, the same for the same seed.

Each layer has a pace and a bag of kinds that is shuffled, emptied and filled again, so that a long
run has every kind about equally often and a short one has different ones. The times are the
earliest: a fault waits for the one before it to be judged (`load.chaos.edge`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

ACCELERATOR: Final = "accelerator"
BOX: Final = "box"
CLUSTER: Final = "cluster"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. lasts_s: until it is lifted, 0 for what strikes once.

    value: a status, a factor or a number, as its kind has it.
    """

    layer: str
    kind: str
    at_s: float
    lasts_s: float = 0.0
    value: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between the faults of a layer; box faults come within a fifth of it."""

    accelerator_s: float = 10.0
    box_s: float = 75.0
    cluster_s: float = 150.0


# What a running job may end with when the device is lost (docs of HailoRT, and load/fake_hailo).
FATAL_STATUSES: Final = (62, 63, 36, 87, 4, 8, 18, 95)
OPEN_STATUSES: Final = (73, 74, 81, 85)

_Draw = Callable[[Random], tuple[float, int]]


def _once(random: Random) -> tuple[float, int]:
    return 0.0, 0


def _for(least_s: float, most_s: float) -> _Draw:
    return lambda random: (round(random.uniform(least_s, most_s), 2), 0)


def _status(statuses: Sequence[int]) -> _Draw:
    return lambda random: (0.0, random.choice(statuses))


def _number(count: int, lasts_s: float = 0.0) -> _Draw:
    return lambda random: (lasts_s, random.randrange(count))


KINDS: Final[Mapping[str, Mapping[str, _Draw]]] = {
    ACCELERATOR: {
        "kill": _once,
        "kill-twice": _once,
        "stop": _once,
        "hang-reopen": _once,
        "hang-reset": _for(1.0, 3.0),
        "hang-release": _for(1.0, 3.0),
        "vanish": _for(1.0, 4.0),
        "slow-5": _for(2.0, 4.0),
        "slow-20": _for(2.0, 4.0),
        "segfault": _once,
        "fail": _status(FATAL_STATUSES),
        "fail-batch": _status(FATAL_STATUSES),
        "refuse": _status((82,)),
        "heat": _for(2.0, 4.0),
        "mismatch": _for(2.0, 5.0),
        "open-refused": lambda random: (
            round(random.uniform(1.0, 3.0), 2),
            random.choice(OPEN_STATUSES),
        ),
    },
    BOX: {
        "reboot": _once,
        "clock-forward": _for(12.0, 20.0),
        "clock-back": _for(12.0, 20.0),
        "clock-1970": _for(12.0, 20.0),
        "disk-full": _for(10.0, 15.0),
        "corrupt": _number(3, 5.0),
        "models": _number(4),
    },
    CLUSTER: {
        "raylet-kill": _once,
        "raylet-stop": _once,
        "head-kill": _once,
        "cut": _for(75.0, 80.0),
    },
}


def kinds() -> tuple[str, ...]:
    """Return every kind there is."""
    return tuple(kind for layer in KINDS.values() for kind in layer)


def schedule(
    seed: int, duration_s: float, pace: Pace, layers: Sequence[str], only: Sequence[str] = ()
) -> list[Fault]:
    """Return the faults of a run in the order of their times. only: these kinds, all if empty."""
    found: list[Fault] = []
    for layer in layers:
        wanted = {k: draw for k, draw in KINDS[layer].items() if not only or k in only}
        # A layer of its own numbers: leaving one out changes nothing in the others.
        random = Random(f"{seed}/{layer}")  # noqa: S311
        times = _times(random, layer, pace, duration_s)
        for at_s, kind in zip(times, _bag(random, list(wanted)), strict=False):
            lasts_s, value = wanted[kind](random)
            found.append(Fault(layer, kind, round(at_s, 2), lasts_s, value))
    return sorted(found, key=lambda fault: (fault.at_s, fault.layer))


def _times(random: Random, layer: str, pace: Pace, duration_s: float) -> Iterator[float]:
    """Yield times that leave the last fault room to be judged."""
    every_s = {
        ACCELERATOR: pace.accelerator_s,
        BOX: pace.box_s,
        CLUSTER: pace.cluster_s,
    }[layer]
    at_s = every_s / 2
    while at_s < duration_s - min(every_s, 10.0):
        yield at_s
        at_s += every_s if layer == ACCELERATOR else every_s * random.uniform(0.8, 1.2)


def _bag(random: Random, kinds: list[str]) -> Iterator[str]:
    while kinds:
        random.shuffle(kinds)
        yield from kinds
