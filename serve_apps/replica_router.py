"""Which replica of a tier a gateway's call goes to, in place of Serve's choice of two.

Serve (2.60) compares two replicas by what they said of themselves, and what a replica says when it
takes a call comes with the answer: where that takes half a second the number is as old, and one
that is high stays so while nothing is sent there (docs/adr/0020-fewest-under-way.md). This router
counts what it has sent and what has ended. Serve calls it on one event loop: nothing is locked.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

from ray.serve.request_router import FIFOMixin, RequestRouter

from policies.routing.replicas import by_length

if TYPE_CHECKING:
    from ray.serve.request_router import PendingRequest, ReplicaID, RunningReplica

CHOSEN_S: Final = 0.1  # for which a choice counts that no send follows: its caller gave up


class UnderWay:
    """How many requests of one router each replica has; one without any is not kept."""

    def __init__(self) -> None:
        self._sent: Counter[object] = Counter()
        self._chosen: deque[tuple[float, object]] = deque()

    def count(self, replica: object, now: float) -> int:
        """Return what was sent there and has not ended, and what is about to be sent."""
        while self._chosen and now - self._chosen[0][0] > CHOSEN_S:
            self._chosen.popleft()
        return self._sent[replica] + sum(chosen == replica for _, chosen in self._chosen)

    def chosen(self, replica: object, now: float) -> None:
        """Count a choice until it is sent: who chooses meanwhile should see it."""
        self._chosen.append((now, replica))

    def sent(self, replica: object) -> None:
        self._sent[replica] += 1
        for index, (_, chosen) in enumerate(self._chosen):
            if chosen == replica:
                del self._chosen[index]
                return

    def ended(self, replica: object) -> None:
        """Count an end, whatever it was; there is one for each send."""
        self._sent[replica] -= 1
        if self._sent[replica] <= 0:
            del self._sent[replica]


class FewestUnderWay(FIFOMixin, RequestRouter):
    """Sends to the replica with the fewest requests under way; Serve makes one for each handle.

    All replicas are ranked, so that one which is full or gone leaves the others. Whether a replica
    takes a request it says itself, as with Serve's own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._under_way = UnderWay()
        self._random = random.Random()  # noqa: S311 (which of equal replicas)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return the replicas, best first, each as a rank of its own."""
        now = time.monotonic()
        counts = [self._under_way.count(each.replica_id, now) for each in candidate_replicas]
        order = by_length(counts, self._random.getrandbits(64))
        if order:
            self._under_way.chosen(candidate_replicas[order[0]].replica_id, now)
        return [[candidate_replicas[index]] for index in order]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        super().on_send_request(replica_id)
        self._under_way.sent(replica_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        super().on_request_completed(replica_id, internal_request_id)
        self._under_way.ended(replica_id)


PATH: Final = f"{FewestUnderWay.__module__}:{FewestUnderWay.__name__}"
