"""When a request would finish at a node, if everything about the node were known.

What runs, what waits and what is on the way there is put through the node's own order and batches;
only what nobody has sent yet is not foreseen. The greedy router that picks the least of these is
the bound that rules are compared with. It is no true optimum: a choice that is best for one
request may be bad for the next.
"""

from __future__ import annotations

import heapq

from load.simulator.jobs import Job
from load.simulator.node import Node


def finish_at(node: Node, job: Job, now: float, arrives: float) -> float:
    """Return when a node would have computed a job that gets there at `arrives`."""
    slowness = node.slowness_now(now)
    is_edf = node.discipline == "edf"
    waiting = [(key, order, _work(other), other.due) for key, order, other in node.waiting()]
    free_at = max(node.free_at, now) if node.is_busy else now
    coming = sorted(
        (at, index, _work(other), other.due)
        for index, (at, other) in enumerate(node.coming)
        if at <= arrives
    )
    coming.append((arrives, len(coming), _work(job), job.due))
    order = 1 << 60
    me = -1
    heapq.heapify(waiting)
    upcoming = 0
    clock = free_at
    spec = node.spec
    base_s, fixed, most = spec.base_s * slowness, spec.fixed, spec.max_batch
    while True:
        while upcoming < len(coming) and (coming[upcoming][0] <= clock or not waiting):
            at, _, work, deadline = coming[upcoming]
            clock = max(clock, at) if not waiting else clock
            order += 1
            heapq.heappush(waiting, (deadline if is_edf else 0.0, order, work, deadline))
            upcoming += 1
            if upcoming == len(coming):
                me = order
        largest = total = 0.0
        least_deadline = float("inf")
        count = 0
        has_me = False
        while waiting and count < most:
            _, number, work, deadline = waiting[0]
            took = base_s * (fixed * max(largest, work) + (1 - fixed) * (total + work))
            if node.drops:
                if not count and clock + took > deadline and number != me:
                    heapq.heappop(waiting)
                    continue
                if count and clock + took > least_deadline:
                    break
            heapq.heappop(waiting)
            largest, total, count = max(largest, work), total + work, count + 1
            least_deadline = min(least_deadline, deadline)
            has_me = has_me or number == me
        if count:
            clock += base_s * (fixed * largest + (1 - fixed) * total)
            if has_me:
                return clock


def _work(job: Job) -> float:
    return job.work * job.surprise
