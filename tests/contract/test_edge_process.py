"""The protocol's conformance suite, once more, against the edge runtime's own process.

Requests cross a socket to `prime-spark edge run`, with tokens and a key that its home holds.
"""

from __future__ import annotations

import pytest

from tests.contract.edge_server import EdgeServer
from tests.contract.test_oip_conformance import (  # noqa: F401 (collected here a second time)
    TestCallers,
    TestDeadlinesAndCancelling,
    TestHealthAndMetadata,
    TestInference,
    TestLimits,
    TestRepository,
    TestStatistics,
    client,
    test_both_transports_give_the_same_answer,
    test_many_callers_on_both_transports_are_all_answered,
)


@pytest.fixture(scope="module")
def server(edge: EdgeServer) -> EdgeServer:
    return edge
