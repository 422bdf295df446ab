"""How warm the chip is, and how far it slows its clock for that.

A body of one time constant between the surrounding air and the heat of the work. Thresholds
and clocks are what owners of a Hailo-8 report of `_get_health_information()`: 400 MHz, and
350, 300, 250 and 200 MHz from 104, 108, 112 and 116 degrees; zones change at 104 and 120. The
hysteresis, the heat and the power are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

NOMINAL_HZ = 400_000_000
NOT_THROTTLED = -1
ORANGE_C, ORANGE_HYSTERESIS_C = 104.0, 99.0
RED_C, RED_HYSTERESIS_C = 120.0, 116.0

_IDLE_RISE_C = 15.0
_BUSY_RISE_C = 45.0
_LOAD_SECONDS = 1.0
_IDLE_W, _BUSY_W = 1.0, 3.5


@dataclass(frozen=True)
class Level:
    """From `threshold_c` up, until it is colder than `hysteresis_c`, the clock is `clock_hz`."""

    threshold_c: float
    hysteresis_c: float
    clock_hz: int


LEVELS = (
    Level(104.0, 102.0, 350_000_000),
    Level(108.0, 106.0, 300_000_000),
    Level(112.0, 110.0, 250_000_000),
    Level(116.0, 114.0, 200_000_000),
)


@dataclass(frozen=True)
class Heat:
    """The chip at one moment; load: the share of the last second or so that it worked."""

    temperature_c: float
    load: float = 0.0
    level: int = NOT_THROTTLED

    @property
    def clock_hz(self) -> int:
        """The clock of the network core."""
        return NOMINAL_HZ if self.level == NOT_THROTTLED else LEVELS[self.level].clock_hz

    @property
    def slowdown(self) -> float:
        """How many times longer a frame takes than at the nominal clock."""
        return NOMINAL_HZ / self.clock_hz

    @property
    def zone(self) -> int:
        """Green, orange or red, as 0, 1 or 2."""
        return (self.temperature_c >= ORANGE_C) + (self.temperature_c >= RED_C)

    @property
    def power_w(self) -> float:
        """What the chip draws."""
        return _IDLE_W + _BUSY_W * self.load / self.slowdown


def at_rest(ambient_c: float) -> Heat:
    """A chip that has been idle for long."""
    return Heat(ambient_c + _IDLE_RISE_C)


@dataclass(frozen=True)
class Place:
    """Where the chip sits: the air around it, and how fast it follows (time constant)."""

    ambient_c: float
    time_constant_s: float


def after(heat: Heat, seconds: float, place: Place, *, works: bool, protected: bool) -> Heat:
    """The chip some seconds later, in which it worked or rested throughout."""
    rise = _IDLE_RISE_C + (_BUSY_RISE_C / heat.slowdown if works else 0.0)
    temperature = _approach(
        heat.temperature_c, place.ambient_c + rise, seconds / place.time_constant_s
    )
    load = _approach(heat.load, 1.0 if works else 0.0, seconds / _LOAD_SECONDS)
    level = _level(heat.level, temperature) if protected else NOT_THROTTLED
    return replace(heat, temperature_c=temperature, load=load, level=level)


def _approach(value: float, goal: float, time_constants: float) -> float:
    return goal + (value - goal) * math.exp(-max(time_constants, 0.0))


def _level(level: int, temperature_c: float) -> int:
    while level + 1 < len(LEVELS) and temperature_c >= LEVELS[level + 1].threshold_c:
        level += 1
    while level > NOT_THROTTLED and temperature_c < LEVELS[level].hysteresis_c:
        level -= 1
    return level
