"""A fleet from what was recorded: what each place takes, how far it is, what it costs.

What a request takes at a place is read from those that found it empty, so that they waited for
nobody. Who came after them is no matter: to ask that they were alone to the end would leave out
the long ones. Where the log says how long computing took, the rest of the time is the way;
elsewhere way and work cannot be told apart by such requests, and all of it counts as work.

How many a place does at once is read from its busiest moments: while several wait, answers follow
one another at the pace of the place, and the time that such requests take alone, over the time
between their answers, is the number of lanes (utilisation law; Denning and Buzen, "The Operational
Analysis of Queueing Network Models", 1978). What that is more than a whole number is taken for the
way, so that the place's pace stays as it was seen. A place that was never busy gets one lane, the
least it can have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InvalidInput
from load.simulator.fleet import DeadlineFile, FleetFile, PlaceFile
from load.simulator.recording import DEFAULT_SLACK_S, OK, Recorded, Recording
from load.simulator.service import Times
from policies.routing.sizes import bucket

Floats = npt.NDArray[np.float64]

ENOUGH: Final = 20  # of a model and size that found it empty, so that no others are needed
FEW: Final = 5  # of a size bucket, below which the nearest one speaks for it
BUSY: Final = 30  # answers in the busiest moments, before lanes are read from them
RUN: Final = 4  # of these in a row
MOST_LANES: Final = 64
GATEWAYS: Final = "gateways"  # their site, where nothing says it
_NEARLY: Final = 0.2  # of a lane, that may be missing by chance; the way only ever adds
_LEAST_S: Final = 1e-6


@dataclass(frozen=True)
class PlaceEstimate:
    """What was found of a place. sampled: requests that say what it takes; crowded: whether some
    of them did not find it empty; lanes: how many it does at once, None where it was never busy
    enough to tell; way_s: None where way and work could not be told apart; seconds: by model and
    size bucket, requests, median and 95th percentile.
    """

    name: str
    tier: str
    site: str
    requests: int
    sampled: int
    crowded: bool
    lanes: int | None
    way_s: float | None
    usd_per_s: float
    usd_per_byte: float
    seconds: Mapping[str, Mapping[int, tuple[int, float, float]]]


@dataclass(frozen=True)
class Estimate:
    """The fleet, what it rests on, and the models that nobody was ever answered for."""

    fleet: FleetFile
    places: Sequence[PlaceEstimate]
    unserved: Sequence[str]

    def unseen(self) -> dict[str, list[str]]:
        """Return, by model, the places where it never ran, so that nothing is known of it there."""
        models = sorted({model for place in self.places for model in place.seconds})
        found = {
            model: [place.name for place in self.places if model not in place.seconds]
            for model in models
        }
        return {model: places for model, places in found.items() if places}


def estimate(recording: Recording) -> Estimate:
    """Measure the fleet that served a recording.

    Raises InvalidInput when the recording does not say where requests were served.
    """
    by_place: dict[str, list[Recorded]] = defaultdict(list)
    for request in recording.requests:
        if request.place and request.taken_s is not None and request.outcome == OK:
            by_place[request.place].append(request)
    if not by_place:
        raise InvalidInput(
            f"'{recording.name}' does not say where requests were served, so that no fleet can be "
            "measured from it",
            field="fleet",
            hint="describe the fleet with --fleet FILE",
        )
    site = recording.gateway_site or GATEWAYS
    found = [_place(name, served, site) for name, served in sorted(by_place.items())]
    served_models = {model for _, place in found for model in place.seconds}
    fleet = FleetFile(
        gateways={site: recording.gateways},
        places=[file for file, _ in found],
        deadlines=(DeadlineFile(share=1.0, ms=DEFAULT_SLACK_S * 1e3),),
    )
    unserved = sorted({request.model for request in recording.requests} - served_models)
    return Estimate(fleet, [place for _, place in found], unserved)


def _place(
    name: str, served: Sequence[Recorded], gateway_site: str
) -> tuple[PlaceFile, PlaceEstimate]:
    served = sorted(served, key=lambda request: request.at)
    starts = np.array([request.at for request in served])
    taken = np.array([max(_LEAST_S, request.taken_s or 0.0) for request in served])
    works = np.array([np.nan if r.work_s is None else max(_LEAST_S, r.work_s) for r in served])
    sample, is_crowded = _undisturbed(served, starts, starts + taken)
    is_timed = ~np.isnan(works)
    says_work = bool(is_timed.mean() > 0.5)
    way_s = None
    if says_work:
        both = sample & is_timed
        way_s = float(np.median((taken - works)[both if both.any() else is_timed]).clip(0.0))
        sample, seconds = is_timed, works
    else:
        seconds = taken
    groups = _groups(served, np.flatnonzero(sample), seconds)
    usual = _usual(served, groups)
    at_once = _at_once(starts, starts + taken, usual)
    lanes = None if at_once is None else min(MOST_LANES, max(1, int(at_once + _NEARLY)))
    if not says_work and at_once is not None and lanes is not None and lanes < at_once:
        share = lanes / at_once
        way_s = (1.0 - share) * float(np.mean(usual))
        usual = usual * share
        groups = {
            model: {index: [one * share for one in group] for index, group in by_bucket.items()}
            for model, by_bucket in groups.items()
        }
    usd_per_s, usd_per_byte = _prices(served, usual)
    last = served[-1]
    file = PlaceFile(
        name=name,
        tier=last.tier or "place",
        site=last.site or gateway_site,
        service_ms={
            model: {
                _size(index): [round(1e3 * one, 4) for one in Times.of(group).quantiles]
                for index, group in by_bucket.items()
            }
            for model, by_bucket in groups.items()
        },
        replicas=lanes or 1,
        way_ms=0.0 if way_s is None else round(1e3 * way_s, 4),
        usd_per_hour=usd_per_s * 3600.0,
        usd_per_gb=usd_per_byte * 1e9,
    )
    return file, PlaceEstimate(
        name=name,
        tier=file.tier,
        site=file.site,
        requests=len(served),
        sampled=int(sample.sum()),
        crowded=is_crowded and not says_work,
        lanes=lanes,
        way_s=way_s,
        usd_per_s=usd_per_s,
        usd_per_byte=usd_per_byte,
        seconds={
            model: {
                index: (len(group), float(np.median(group)), float(np.percentile(group, 95)))
                for index, group in by_bucket.items()
            }
            for model, by_bucket in groups.items()
        },
    )


def _undisturbed(
    served: Sequence[Recorded], starts: Floats, ends: Floats
) -> tuple[npt.NDArray[np.bool_], bool]:
    """Return which requests found the place empty.

    Of a model and size with few of them, those that found the fewest are taken as well; then the
    second value is True.
    """
    found = np.arange(len(starts)) - np.searchsorted(np.sort(ends), starts, "right")
    company = found + np.array([0 if r.attempts == 1 else len(served) for r in served])
    kinds: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, request in enumerate(served):
        kinds[request.model, bucket(request.size_bytes)].append(index)
    sample = company <= 0
    is_crowded = False
    for indexes in kinds.values():
        own = np.array(indexes)
        if sample[own].sum() < min(ENOUGH, len(own)):
            sample[own[np.argsort(company[own], kind="stable")[:ENOUGH]]] = True
            is_crowded = True
    return sample, is_crowded


def _groups(
    served: Sequence[Recorded], chosen: npt.NDArray[np.int64], seconds: Floats
) -> dict[str, dict[int, list[float]]]:
    """Return the seconds by model and bucket; a bucket with few is left out beside one with more.

    A model without any is judged by the whole time of its requests.
    """
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for index in chosen.tolist():
        request = served[index]
        found[request.model][bucket(request.size_bytes)].append(float(seconds[index]))
    missing = {request.model for request in served} - set(found)
    for request in served:
        if request.model in missing and request.taken_s is not None:
            found[request.model][bucket(request.size_bytes)].append(max(_LEAST_S, request.taken_s))
    return {
        model: {
            index: group
            for index, group in sorted(by_bucket.items())
            if len(group) >= min(FEW, max(len(other) for other in by_bucket.values()))
        }
        for model, by_bucket in sorted(found.items())
    }


def _usual(served: Sequence[Recorded], groups: Mapping[str, Mapping[int, Any]]) -> Floats:
    """Return what each request usually takes alone."""
    medians = {
        model: {index: float(np.median(group)) for index, group in by_bucket.items()}
        for model, by_bucket in groups.items()
    }

    def usual(request: Recorded) -> float:
        by_bucket, own = medians[request.model], bucket(request.size_bytes)
        return by_bucket[min(by_bucket, key=lambda index: (abs(index - own), index))]

    return np.array([usual(request) for request in served])


def _at_once(starts: Floats, ends: Floats, usual: Floats) -> float | None:
    """Return how many a place does at once, by the pace of answers while most are waiting."""
    order = np.argsort(ends, kind="stable")
    ended, work = ends[order], usual[order]
    left = np.searchsorted(starts, ended, "left") - np.arange(1, len(ended) + 1)
    gaps = np.diff(ended)
    waiting, gap_work = left[:-1], work[1:]
    if len(waiting) < BUSY:
        return None
    for least in range(int(np.sort(waiting)[-BUSY]), 1, -1):
        busiest = _in_runs(waiting >= least)
        passed_s = float(gaps[busiest].sum())
        if busiest.sum() >= BUSY and passed_s > 0.0:
            return float(gap_work[busiest].sum()) / passed_s
    return None


def _in_runs(chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Keep what is chosen `RUN` times in a row or more.

    Of the first answer of a run, a part was computed before: in short runs that would count much.
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([False], chosen, [False])).astype(np.int8)))
    kept = np.zeros(len(chosen), bool)
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        kept[begin:end] = end - begin >= RUN
    return kept


def _prices(served: Sequence[Recorded], usual: Floats) -> tuple[float, float]:
    """Return dollars a second of work, and dollars a byte that is moved there."""
    work_s = computing = moving = 0.0
    moved = 0
    for request, seconds in zip(served, usual.tolist(), strict=True):
        if request.usd is None:
            continue
        part = min(request.usd, request.moved_usd or 0.0)
        computing += request.usd - part
        work_s += seconds
        if request.origin_site != request.site:
            moving += part
            moved += request.size_bytes
    return computing / work_s if work_s else 0.0, moving / moved if moved else 0.0


def _size(index: int) -> int:
    """Return a size that is in a bucket."""
    return (1 << index) - 1
