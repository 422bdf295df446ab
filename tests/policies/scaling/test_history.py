from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.history import Flow, History

Arrivals = st.lists(st.tuples(st.floats(0, 500), st.floats(0, 10)), min_size=1, max_size=60).map(
    sorted
)


@given(Arrivals, st.integers(1, 50), st.sampled_from([0.5, 1.0, 7.0]))
def test_it_keeps_what_a_plain_count_of_the_last_buckets_keeps(
    arrivals: list[tuple[float, float]], buckets: int, bucket_s: float
) -> None:
    history = History(bucket_s, buckets)
    for at, work in arrivals:
        history.add(at, work)
    end_s = arrivals[-1][0] + bucket_s
    begin_s, works = history.known(end_s)
    last = int(end_s // bucket_s)
    numbers = [int(at // bucket_s) for at, _ in arrivals]
    # What the last arrival has pushed out is gone; the bucket that has not ended is not told.
    oldest = max(numbers[0], max(numbers[-1], last - 1) - buckets + 1)
    assert begin_s == oldest * bucket_s
    expected = [
        sum(work for number, (_, work) in zip(numbers, arrivals, strict=True) if number == each)
        for each in range(oldest, last)
    ]
    assert works.tolist() == pytest.approx(expected)


def test_work_that_is_older_than_everything_kept_is_left_out() -> None:
    history = History(1.0, 3)
    history.add(10.5, 1.0)
    history.add(2.5, 5.0)
    assert history.total == 1.0


def test_a_long_silence_leaves_zeros_and_nothing_older() -> None:
    history = History(1.0, 3)
    history.add(0.5, 4.0)
    begin_s, works = history.known(100.0)
    assert (begin_s, works.tolist()) == (97.0, [0.0, 0.0, 0.0])


def test_what_was_known_can_be_put_back() -> None:
    history, again = History(2.0, 5), History(2.0, 5)
    for second, work in enumerate([1.0, 0.0, 2.5, 3.0]):
        history.add(second * 2.0 + 0.1, work)
    begin_s, works = history.known(8.0)
    again.restore(begin_s, works.tolist())
    assert again.known(8.0)[0] == begin_s
    assert again.known(8.0)[1].tolist() == works.tolist()


@pytest.mark.parametrize(("bucket_s", "buckets"), [(0.0, 1), (1.0, 0), (-1.0, 3)])
def test_a_history_without_buckets_is_refused(bucket_s: float, buckets: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        History(bucket_s, buckets)


def test_a_flow_adds_up_histories_that_began_at_different_times() -> None:
    early, late = History(1.0, 10), History(1.0, 10)
    for second in range(6):
        early.add(second + 0.5, 2.0)
    late.add(4.5, 1.0)
    flow = Flow((early, late), 6.0)
    assert (flow.begin_s, flow.end_s) == (0.0, 6.0)
    assert flow.over(0.0, 6.0) == pytest.approx(13 / 6)
    assert flow.mean(np.array([4.0]), np.array([5.0])).tolist() == pytest.approx([3.0])


def test_half_a_bucket_holds_half_of_its_work() -> None:
    history = History(10.0, 4)
    history.add(3.0, 20.0)
    flow = Flow((history,), 10.0)
    assert flow.over(0.0, 5.0) == pytest.approx(2.0)
    assert flow.over(-10.0, 0.0) == 0.0


def test_a_flow_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no history"):
        Flow((), 1.0)


def test_an_empty_history_knows_nothing() -> None:
    history = History(1.0, 4)
    assert history.known(9.0)[1].tolist() == []
    assert Flow((history,), 9.0).over(0.0, 9.0) == 0.0
