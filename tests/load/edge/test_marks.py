from __future__ import annotations

from typing import Any, Literal

import pytest

from load.edge import death, hop, overhead, soak, start, throughput
from load.edge.crowd import Crowd
from load.edge.marks import Found, Mark, judge
from load.edge.watch import Sample, tenths


@pytest.mark.parametrize(
    ("how", "value", "is_met"),
    [
        ("at_most", 1.0, True),
        ("at_most", 1.001, False),
        ("at_most", float("nan"), False),
        ("at_least", 1.0, True),
        ("at_least", 0.999, False),
        ("at_least", float("nan"), False),
    ],
)
def test_a_mark_holds_up_to_and_with_its_limit(
    how: Literal["at_most", "at_least"], value: float, is_met: bool
) -> None:
    mark = Mark("s", "t", "ms", how, 1.0)
    assert judge(mark, Found(value, value, value)).is_met is is_met


def test_nothing_measured_is_no_figure() -> None:
    with pytest.raises(ValueError, match="no values"):
        Found.median([])


def process(ready_s: float, rest_mb: float, after_mb: float) -> dict[str, Any]:
    return {"ready_s": ready_s, "rest": {"rss": rest_mb * 1e6}, "after": {"rss": after_mb * 1e6}}


def test_start_is_judged_by_medians_in_millions_of_bytes() -> None:
    ours = [process(0.5, 109.0, 110.5), process(0.9, 109.0, 110.5), process(0.55, 200.0, 1.0)]
    verdicts = start.judged({"starts": {start.OURS: ours, start.FLOOR: []}})
    assert [v.found.value for v in verdicts] == [0.55, 109.0, 110.5]
    assert [v.is_met for v in verdicts] == [True, True, False]


def test_http_is_judged_within_rounds_after_half_a_millisecond() -> None:
    def measured(*p50: float) -> list[dict[str, Any]]:
        return [{"latency_ms": {"p50": value}} for value in p50]

    rounds = {overhead.OURS: measured(11.5, 44.5, 23.5), overhead.NICE: measured(10.0, 40.0, 10.0)}
    (verdict,) = overhead.judged({"heavy": "h", "rounds": {"h": rounds}})
    assert verdict.found.value == pytest.approx(1.1)
    assert verdict.found.most == pytest.approx(2.3)
    assert verdict.is_met


def test_the_hop_is_judged_on_uint8_frames_of_150_kb_only() -> None:
    def row(kind: str, size: int, p50_ms: float) -> dict[str, Any]:
        return {"kind": kind, "bytes": size, "p50_ms": p50_ms}

    rounds = [
        [row(hop.MARKED, hop.FRAME, p50), row(hop.MARKED, 1024, 9.0), row("float32", hop.FRAME, 9)]
        for p50 in (0.09, 0.2, 0.08)
    ]
    (verdict,) = hop.judged({"rounds": rounds})
    assert verdict.found.value == 0.09
    assert hop.judged({"rounds": [[row(hop.MARKED, 1024, 0.01)]]}) == []


def blow(kind: str, noticed_s: float, waits_s: list[float], limit_s: float = 0.0) -> dict[str, Any]:
    return {
        "kind": kind,
        "noticed_s": noticed_s,
        "in_flight_s": waits_s,
        "back_s": 0.4,
        "limit_s": limit_s,
    }


def test_kills_are_judged_by_the_worst_and_requests_by_their_99th_percentile() -> None:
    waits = [0.01] * 99
    blows = [
        blow("kill", 0.001, waits),
        blow("kill", 0.03, [5.0]),
        blow("hang", 0.5, [9.0], 0.45),
        blow("hang", 0.2, [], 0.25),
    ]
    noticed, answered, back, hung = death.judged({"blows": blows})
    assert (noticed.found.value, noticed.is_met) == (30.0, False)
    assert (answered.found.value, answered.found.most, answered.is_met) == (10.0, 5000.0, True)
    assert back.is_met
    assert hung.found.value == pytest.approx(50.0)
    assert not hung.is_met


def test_throughput_is_judged_as_ratios_within_rounds() -> None:
    alone = [100.0, 200.0, 50.0]
    light = {throughput.WHOLE: [90.0, 100.0, 50.0], throughput.ENGINE: [1.0, 1.0, 1.0]}
    heavy = {throughput.ENGINE: [80.0, 160.0, 49.0], throughput.HTTP: [95.0, 190.0, 10.0]}
    found = {
        "light": "l",
        "heavy": "h",
        "models": {
            "l": {"rounds": {throughput.ALONE: alone, **light}},
            "h": {"rounds": {throughput.ALONE: alone, **heavy}},
        },
    }
    whole, engine, over_http = throughput.judged(found)
    assert (whole.found.value, whole.is_met) == (0.9, True)
    assert (engine.found.value, engine.is_met) == (0.8, False)
    assert over_http.is_met


def samples(rss: list[int], files: int = 20, more_files: int = 0) -> list[Sample]:
    return [
        Sample(float(at), size, 0, files + (more_files if at > len(rss) / 2 else 0), 8, at)
        for at, size in enumerate(rss)
    ]


def test_growth_is_between_the_medians_of_the_first_and_the_last_tenth() -> None:
    sizes = [100] * 11 + [500] * 80 + [104] * 10
    sizes[3] = 900  # a peak within a tenth is none of the median
    assert tenths(samples(sizes), lambda s: s.rss) == (100, 104)
    crowd = Crowd(1, {}, 0.0, 1)
    assert all(verdict.is_met for verdict in soak.judged(samples(sizes), crowd))


def test_a_soak_fails_for_growth_wrong_answers_surprises_and_files() -> None:
    crowd = Crowd(1, {}, 0.0, 1)
    crowd.counts.wrong["digits"] += 1
    crowd.counts.surprise("status 500", "oh")
    found = soak.judged(samples([100] * 50 + [106] * 50, more_files=6), crowd)
    assert [verdict.is_met for verdict in found] == [False, False, False, False, True]
