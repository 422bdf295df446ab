"""What a model of delays is told of a request and a place, in figures of about the same size.

All of them are bounded, whatever a place says of itself, and finite: what is no number counts as
nothing known. They are the estimate's own parts, since the model has to say where that is wrong:
how much room it leaves, how much of it is waiting and how much is way, how old the news is that
it rests on, how busy the place is, and how it has been there of late.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from policies.routing.delay import relative_size, wait_s
from policies.routing.lateness import corrected, late_share
from policies.routing.reliability import Line, corrected_share
from policies.routing.types import Request, Target

NAMES: Final = (
    "one",
    "margin",  # logarithm of the time left over the time that is expected, both with an own run
    "is_tight",  # by how much that is negative
    "late",  # the share of past errors with which it would be late, corrected
    "is_sure",  # how far that is from a half
    "waiting",  # share of the time at the place
    "way",  # share of the way in all the time
    "busy",
    "age",  # of the last report, in seconds up to 2
    "outstanding",  # logarithm
    "size",  # logarithm of the request's work over that of a usual one
    "slower",  # logarithm of the work of a usual request over what it was said to be
    "bias",  # logarithm of the usual error
    "unasked",  # tenths of a second to a second since the last answer, up to 10 s
    "hurry",  # logarithm of the time to the deadline
    "is_far",  # it is in the cloud
)
MOST: Final = 3.0
_OLDEST_S: Final = 2.0
_UNASKED_S: Final = 10.0
_LEAST: Final = 1e-6


class Context(NamedTuple):
    """A request at a place, with the plain estimate.

    figures: in the order of `NAMES`; way_s: there and back; place_s: estimated seconds at the
    place, corrected by the usual error; offset_s: see `lateness`; late: estimated P(late).
    """

    figures: tuple[float, ...]
    way_s: float
    place_s: float
    offset_s: float
    late: float


def context(request: Request, target: Target, line: Line, now: float) -> Context:
    """Return what is known of a request at a place. line: see `RoutingTable.reliability`."""
    way_s, service_s = target.rtt_s, target.service_s
    left_s = request.slack_s - way_s
    waiting_s = wait_s(target, left_s, now)
    relative = relative_size(target, request.bucket)
    there_s = waiting_s + service_s * relative
    late = corrected_share(line, late_share(target.errors, there_s, service_s, left_s))
    place_s = corrected(target.bias, there_s, service_s)
    margin = _log((left_s + service_s) if left_s > 0.0 else 0.0, place_s + service_s)
    figures = (
        1.0,
        margin,
        -margin if margin < 0.0 else 0.0,
        late,
        abs(late - 0.5),
        waiting_s / (there_s + _LEAST),
        way_s / (way_s + there_s + _LEAST),
        target.busy,
        min(_OLDEST_S, now - target.heard_at),
        0.5 * _log(1.0 + target.outstanding, 1.0),
        _log(relative, 1.0),
        _log(service_s, target.prior_s) if target.prior_s else 0.0,
        _log(target.bias, 1.0),
        min(_UNASKED_S, now - target.peak_at) / _UNASKED_S,
        _log(request.slack_s, 1.0) if request.slack_s > 0.0 else -MOST,
        1.0 if target.tier == "cloud" else 0.0,
    )
    return Context(tuple(map(bounded, figures)), way_s, place_s, service_s, late)


def bounded(value: float) -> float:
    """Return a number within `MOST` of nothing; nan is nothing."""
    if -MOST <= value <= MOST:
        return value
    return MOST if value > MOST else -MOST if value < -MOST else 0.0


def _log(value: float, over: float) -> float:
    return math.log(max(0.0, value) + _LEAST) - math.log(max(0.0, over) + _LEAST)
