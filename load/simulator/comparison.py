"""Replays traffic under several policies, and compares what became of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InvalidInput
from load.simulator.jobs import Replay
from load.simulator.recording import OK, Recorded
from load.simulator.run import Outcomes, Plan, Simulation
from load.simulator.world import World
from policies.routing import Objective, Rule, choose
from policies.routing.classical import PROBED, RULES
from policies.routing.prequal import PROBES
from policies.routing.types import OBJECTIVES

AS_RECORDED: Final = "as recorded"
OMNISCIENT: Final = "omniscient"
BINS: Final = 96  # of the timeline
RANKS: Final = (*np.linspace(0.0, 98.0, 50).tolist(), *np.linspace(98.5, 100.0, 13).tolist())


@dataclass(frozen=True)
class Policy:
    """A rule to replay with. objective: None for each request's own; is_in_force: it ran then."""

    name: str
    rule: Rule | None
    objective: Objective | None
    is_in_force: bool = False


@dataclass(frozen=True)
class Replayed:
    """What became of the requests under a policy. Times in seconds, money in dollars.

    misses, refused, dropped, lost: shares; a miss is late or one of the others. delays_s: at the
    percentiles `RANKS` of those that were answered. share, busy: by place; busy is the share of
    time in which its replicas computed. bin_misses, bin_requests: along the timeline.
    """

    policy: str
    is_in_force: bool
    requests: int
    p50_s: float
    p95_s: float
    p99_s: float
    misses: float
    refused: float
    dropped: float
    lost: float
    usd: float
    share: Mapping[str, float]
    busy: Mapping[str, float]
    delays_s: Sequence[float]
    bin_requests: Sequence[int]
    bin_misses: Sequence[int]
    dead_sends: int = 0

    @property
    def usd_per_1000(self) -> float:
        return 1000.0 * self.usd / self.requests

    def document(self) -> dict[str, Any]:
        """Return it as a JSON value; times are null where nobody was answered."""
        found = {**asdict(self), "usd_per_1000": self.usd_per_1000}
        if math.isnan(self.p50_s):
            found |= {"p50_s": None, "p95_s": None, "p99_s": None, "delays_s": None}
        return found


def policies_of(names: Sequence[str], in_force: Sequence[Objective]) -> list[Policy]:
    """Return policies by name; none named: what was in force, and every objective.

    in_force: the objectives of the recorded requests. Raises InvalidInput for an unknown name.
    """
    mixed = len(in_force) > 1
    wanted = list(dict.fromkeys(names)) or [*([AS_RECORDED] if mixed else []), *OBJECTIVES]
    found: list[Policy] = []
    for name in wanted:
        if name in (AS_RECORDED, "as-recorded", "recorded"):
            found.append(Policy(AS_RECORDED, choose, None, is_in_force=True))
        elif name == OMNISCIENT:
            found.append(Policy(name, None, "latency"))
        elif name in RULES:
            found.append(Policy(name, RULES[name], "balanced"))
        else:
            objective = next((one for one in OBJECTIVES if one == name), None)
            if objective is None:
                known = ("recorded", *OBJECTIVES, *RULES, OMNISCIENT)
                raise InvalidInput(
                    f"there is no policy '{name}'",
                    field="policy",
                    hint="one of " + ", ".join(known),
                )
            ran = not mixed and objective == in_force[0]
            found.append(Policy(name, choose, objective, is_in_force=ran))
    return found


def check(replay: Replay, world: World) -> None:
    """Raise InvalidInput when there is a model that no place serves."""
    for model in replay.models:
        if not any(node.serves(model) for node in world.nodes):
            raise InvalidInput(
                f"no place of the fleet serves model '{model}'",
                field="fleet",
                hint="name it in a place's service_ms, or give that one number for all models",
            )


def run(
    policy: Policy,
    replay: Replay,
    world: World,
    seed: int,
    told: Callable[[int], None] | None = None,
) -> Replayed:
    """Replay under a policy: queues by deadline, the hopeless dropped, loads in replies."""
    plan = Plan(
        world=world,
        trace=replay,
        utilisation=1.0,
        rule=policy.rule,
        objective=policy.objective,
        discipline="edf",
        drops=True,
        seed=seed,
        probes=PROBES if policy.name in PROBED else 0,
    )
    return _summary(policy, world, Simulation(plan, told).run())


def _summary(policy: Policy, world: World, found: Outcomes) -> Replayed:
    count = len(found.arrived)
    outcomes = Counter(found.outcome)
    is_late = np.isnan(found.delay_s) | (np.nan_to_num(found.delay_s) > found.slack_s)
    delays_s = _percentiles(found.delay_s[~np.isnan(found.delay_s)])
    served = Counter(
        target for target, outcome in zip(found.target, found.outcome, strict=True) if outcome == OK
    )
    names = list(dict.fromkeys(node.target for node in world.nodes))
    busy: dict[str, list[float]] = {name: [] for name in names}
    for node in world.nodes:
        busy[node.target].append(found.busy[node.name])
    bins = _bins(found.arrived, found.duration_s)
    return Replayed(
        policy=policy.name,
        is_in_force=policy.is_in_force,
        requests=count,
        p50_s=delays_s[50.0],
        p95_s=delays_s[95.0],
        p99_s=delays_s[99.0],
        misses=float(is_late.mean()),
        refused=outcomes["refused"] / count,
        dropped=outcomes["dropped"] / count,
        lost=outcomes["lost"] / count,
        usd=float(found.cost_usd.sum()),
        share={name: served[name] / count for name in names},
        busy={name: float(np.mean(those)) for name, those in busy.items()},
        delays_s=[delays_s[rank] for rank in RANKS],
        bin_requests=np.bincount(bins, minlength=BINS).tolist(),
        bin_misses=np.bincount(bins[is_late], minlength=BINS).tolist(),
        dead_sends=found.dead_sends,
    )


def as_it_was(requests: Sequence[Recorded]) -> Replayed:
    """Return what became of requests in truth, as far as that was recorded."""
    count = len(requests)
    at = np.array([request.at for request in requests])
    at -= at[0]
    is_late = np.array([request.is_miss for request in requests])
    taken = [r.taken_s for r in requests if r.outcome == OK and r.taken_s is not None]
    delays_s = _percentiles(np.array(taken))
    served = Counter(request.place for request in requests if request.outcome == OK)
    bins = _bins(at, float(at[-1]))
    return Replayed(
        policy="recorded",
        is_in_force=True,
        requests=count,
        p50_s=delays_s[50.0],
        p95_s=delays_s[95.0],
        p99_s=delays_s[99.0],
        misses=float(is_late.mean()),
        refused=sum(request.outcome != OK for request in requests) / count,
        dropped=0.0,
        lost=0.0,
        usd=sum(request.usd or 0.0 for request in requests),
        share={name: number / count for name, number in sorted(served.items()) if name},
        busy={},
        delays_s=[delays_s[rank] for rank in RANKS],
        bin_requests=np.bincount(bins, minlength=BINS).tolist(),
        bin_misses=np.bincount(bins[is_late], minlength=BINS).tolist(),
    )


def _bins(arrived: npt.NDArray[np.float64], duration_s: float) -> npt.NDArray[np.int64]:
    width = max(duration_s, 1e-9) / BINS
    return np.minimum(BINS - 1, (arrived / width).astype(np.int64))


def _percentiles(delays: npt.NDArray[np.float64]) -> dict[float, float]:
    ranks = sorted({*RANKS, 50.0, 95.0, 99.0})
    if not len(delays):
        return dict.fromkeys(ranks, float("nan"))
    return dict(zip(ranks, np.percentile(delays, ranks).tolist(), strict=True))
