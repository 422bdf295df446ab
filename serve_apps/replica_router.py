"""Which replica of a tier a gateway's call goes to, in place of Serve's choice of two.

Serve (2.60) compares two replicas by what they said of themselves, and what a replica says when it
takes a call comes with the answer: where that takes half a second the number is as old, and one
that is high stays so while nothing is sent there (docs/adr/0020-fewest-under-way.md). This router
counts what it has sent and what has ended. Serve calls it on one event loop: nothing is locked.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ray.serve.request_router import FIFOMixin, RequestRouter

from policies.routing.replicas import by_length

if TYPE_CHECKING:
    from ray.serve.request_router import PendingRequest, ReplicaID, RunningReplica

CHOSEN_S: Final = 0.1  # for which a choice counts that no send follows: its caller gave up


class UnderWay:
    """How many requests of one router each replica has; one without any is not kept.

    clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent: Counter[object] = Counter()
        self._chosen: defaultdict[object, deque[float]] = defaultdict(deque)

    def count(self, replica: object) -> int:
        """Return what was sent there and has not ended, and what is about to be sent."""
        chosen = self._chosen.get(replica)
        if not chosen:
            return self._sent[replica]
        while chosen and self._clock() - chosen[0] > CHOSEN_S:
            chosen.popleft()
        return self._sent[replica] + len(chosen)

    def chosen(self, replica: object) -> None:
        """Count a choice until it is sent: who chooses meanwhile should see it."""
        self._chosen[replica].append(self._clock())

    def sent(self, replica: object) -> None:
        """Count a send. What is left of choices is then the older ones, and ends."""
        self._sent[replica] += 1
        if chosen := self._chosen.get(replica):
            chosen.pop()

    def ended(self, replica: object) -> None:
        """Count an end, whatever it was. One without a send (Serve could not) is at worst one less
        than there are, until that replica has none.
        """
        self._sent[replica] -= 1
        if self._sent[replica] <= 0:
            del self._sent[replica]

    def keep(self, replicas: frozenset[object]) -> None:
        """Forget the choices of replicas that are gone; what was sent there ends by itself."""
        for replica in self._chosen.keys() - replicas:
            del self._chosen[replica]


class FewestUnderWay(FIFOMixin, RequestRouter):
    """Sends to the replica with the fewest requests under way; Serve makes one for each handle.

    All replicas are ranked, so that one which is full or gone leaves the others. Whether a replica
    takes a request it says itself, as with Serve's own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._under_way = UnderWay(kwargs.get("get_curr_time_s") or time.monotonic)
        self._random = random.Random()  # noqa: S311 (which of equal replicas)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return the replicas in ranks, best first.

        Those of which Serve has heard nothing lately, because they are new or could not be reached,
        are in the first rank beside the best of the others: Serve asks them while that one gets the
        request. By themselves they would be waited for.
        """
        if pending_request is not None:  # else those who find no replica would try without a pause
            pending_request.routing_context.should_backoff = True
        counts = [self._under_way.count(each.replica_id) for each in candidate_replicas]
        order = by_length(counts, self._random.getrandbits(64))
        ranked = [candidate_replicas[index] for index in order]
        heard = self.replica_queue_len_cache
        known = [each for each in ranked if heard.get(each.replica_id) is not None]
        unknown = [each for each in ranked if heard.get(each.replica_id) is None]
        if known:
            self._under_way.chosen(known[0].replica_id)
        ranks = [known[:1] + unknown, *([each] for each in known[1:])]
        return [rank for rank in ranks if rank]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        super().on_send_request(replica_id)
        self._under_way.sent(replica_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        super().on_request_completed(replica_id, internal_request_id)
        self._under_way.ended(replica_id)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        self._under_way.keep(frozenset(each.replica_id for each in replicas))


PATH: Final = f"{FewestUnderWay.__module__}:{FewestUnderWay.__name__}"
