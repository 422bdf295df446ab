"""Which replica of one place takes a request: one with the fewest under way.

Join the shortest queue (Winston, "Optimality of the shortest line discipline", 1977), by what a
router has sent itself: it hears of an end at once, of what others send much later.
"""

from __future__ import annotations

from collections.abc import Sequence


def by_length(under_way: Sequence[int], draw: int) -> list[int]:
    """Return the indexes of all replicas, the one with the fewest requests first.

    draw: random bits, by which equal ones are ordered: routers that know the same would all send to
    the first else.
    """
    count = len(under_way)
    if count < 2:
        return list(range(count))
    first = draw % count
    order = [*range(first, count), *range(first)]
    if draw // count & 1:
        order.reverse()
    order.sort(key=under_way.__getitem__)  # stable: equal ones stay as they were drawn
    return order
