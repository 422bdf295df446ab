"""A plan over edge and cloud: what edge nodes can take in time is not asked of cloud replicas."""

from __future__ import annotations

from collections.abc import Sequence


def left_for_cloud(work: float, edge_capacity: Sequence[float], *, spare_largest: bool) -> float:
    """Return work a second that the cloud has to do.

    edge_capacity: work a second that each node takes within the deadlines. spare_largest: plan as
    if the largest of them were lost, so that losing one node needs no new replica.
    """
    capacity = sum(edge_capacity)
    if spare_largest and edge_capacity:
        capacity -= max(edge_capacity)
    return max(0.0, work - capacity)
