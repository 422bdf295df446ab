"""The protocol's conformance suite, once more, against the gateway of a running cluster.

Requests go through the front door and a Serve handle to a replica in another process.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
from tests.e2e.cluster import TestCluster
from tests.e2e.gateway_server import BROKEN, GatewayServer, serve_suite_models


@pytest.fixture(scope="module")
def server(
    cluster: TestCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    serve_suite_models(cluster, tmp_path_factory.mktemp("suite"))
    key = cluster.must("apikey", "create", "suite").strip()
    yield GatewayServer(cluster, key, cluster.token("infer", "models:write", "metrics:read"))
    # The suite leaves a model behind that cannot be loaded, which is a reason to call the
    # cluster degraded.
    cluster.must("model", "unserve", f"{BROKEN}@1")
