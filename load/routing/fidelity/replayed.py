"""The same arrivals in the simulator, with what was measured of the cluster."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from load.routing.fidelity.calibration import Parameters
from load.routing.fidelity.judge import Seen
from load.routing.fidelity.traffic import Arrival
from load.simulator import jobs
from load.simulator.run import Plan, Simulation
from policies.routing import RULES, Objective

SIZE_BYTES: Final = 1024  # of the input tensor


@dataclass(frozen=True, slots=True)
class Stretch:
    """Arrivals of one run. begins_s: when it began, on a clock that all runs of a turn share."""

    begins_s: float
    objective: Objective
    arrivals: Sequence[Arrival]


def simulate(
    parameters: Parameters,
    priors_s: Mapping[str, float],
    stretches: Sequence[Stretch],
    rule: str,
    *,
    origin_site: str,
    judged_from_s: float,
    seed: int,
) -> list[list[Seen]]:
    """Replay the runs of a turn one after another, as gateways learn from one to the next.

    Returns what became, in each, of those that come `judged_from_s` after its beginning or later.
    """
    site = parameters.gateway_site
    replay = jobs.Replay(
        "replayed",
        [
            jobs.Arrival(
                stretch.begins_s + one.at_s, one.slack_s, SIZE_BYTES, "", stretch.objective, site,
                origin_site,
            )
            for stretch in stretches
            for one in stretch.arrivals
        ],
    )  # fmt: skip
    found = Simulation(
        Plan(
            world=parameters.world(priors_s),
            trace=replay,
            utilisation=1.0,
            rule=RULES[rule],
            objective=None,
            discipline="edf",
            drops=True,
            seed=seed,
        )
    ).run()
    begins = [stretch.begins_s for stretch in stretches]
    seen: list[list[Seen]] = [[] for _ in stretches]
    for at_s, slack_s, delay_s, target in zip(
        found.arrived.tolist(),
        found.slack_s.tolist(),
        found.delay_s.tolist(),
        found.target,
        strict=True,
    ):
        index = bisect_right(begins, at_s) - 1
        if at_s - begins[index] >= judged_from_s:
            taken_s = None if np.isnan(delay_s) else delay_s + parameters.outside_s
            seen[index].append(Seen(slack_s, taken_s, target))
    return seen
