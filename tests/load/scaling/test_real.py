"""What the comparison on real clusters is judged by."""

from __future__ import annotations

from dataclasses import replace

from load.scaling.real import Seen, verdicts

SERVE = Seen("reactive", 250.0, 1000, 400.0, 2.0, 4, 0.0, 0, 260.0, 300.0, 1.0, 0.0, ())


def test_a_tenth_fewer_replica_seconds_and_no_misses_hold() -> None:
    lean = replace(SERVE, scaling="predictive", replica_s=360.0)
    assert all(verdict.is_met for verdict in verdicts(lean, SERVE))


def test_as_many_replica_seconds_or_more_misses_do_not() -> None:
    late = replace(SERVE, scaling="predictive", misses=0.002)
    assert [verdict.is_met for verdict in verdicts(late, SERVE)] == [False, False]
