"""Reaches the replicas of an inference application through its Serve handle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from edge_runtime.errors import Overloaded
from serve_apps.wire import Call, ReplicaReport, Reply

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

REPLICA_S: Final = 1.0  # below `targets.SILENCE_S`: one that hangs must not hide the others


class HandleBacking:
    """The backing of a `RemoteTarget` on a Ray cluster; `replica_router` picks who takes a call.

    may_sleep: that there is no replica is no failure.
    """

    def __init__(self, handle: DeploymentHandle[Any], *, may_sleep: bool = False) -> None:
        self._handle = handle
        self._may_sleep = may_sleep
        # What travels is builtin types: plain pickle, in a third of cloudpickle's time.
        self._infer = handle.options(
            method_name="infer", request_serialization="pickle", response_serialization="pickle"
        )

    async def call(self, call: Call) -> Reply:
        """Send a call. Raises Overloaded when Serve has too many, what Ray raises otherwise."""
        response: Any = self._infer.remote(tuple(call))
        try:
            reply = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except BackPressureError:
            raise Overloaded(
                f"model '{call.model}' has more requests than its replicas take",
                retry_after_s=1.0,
                details={"reason": "queue_full"},
            ) from None
        return Reply.of(reply)

    async def wake(self) -> None:
        """Wait for a replica's answer: Serve starts one when a call waits and there is none."""
        response: Any = self._handle.options(method_name="report").remote()
        try:
            await response
        except asyncio.CancelledError:
            response.cancel()
            raise

    async def probe(self) -> Sequence[ReplicaReport]:
        """Ask all replicas side by side; those that fail or hang are left out.

        Raises TimeoutError when all there are hang, ConnectionError when none answers otherwise.
        """
        # `results_async` waits for the last replica and leaves what hangs behind when it is
        # given up; the single results are not public in Serve 2.60. Use them when they are.
        response: Any = self._handle.broadcast("report")
        try:
            results = await response._fetch_replica_results_async()
        except DeploymentUnavailableError:  # what it says where there is no replica
            if self._may_sleep:
                return ()
            raise
        answers = await asyncio.gather(*map(_answer, results), return_exceptions=True)
        reports = [answer for answer in answers if isinstance(answer, ReplicaReport)]
        if answers and not reports:
            if any(isinstance(answer, TimeoutError) for answer in answers):
                raise TimeoutError
            raise ConnectionError("no replica answered")
        return reports


async def _answer(result: Any) -> ReplicaReport:
    try:
        async with asyncio.timeout(REPLICA_S):
            report: ReplicaReport = await result.get_async()
            return report
    except (TimeoutError, asyncio.CancelledError):
        result.cancel()  # else one more waits in the replica for every probe
        raise
