"""The clients that users have, unchanged, against the edge runtime's own process."""

from __future__ import annotations

import pytest

from tests.contract.edge_server import EdgeServer
from tests.contract.test_tritonclient import (  # noqa: F401 (collected here a second time)
    either,
    grpc,
    http,
    test_a_refusal_carries_message_and_status,
    test_a_stream_answers_in_order_and_survives_refusals,
    test_asynchronous_calls_of_the_synchronous_clients,
    test_classification_and_ids,
    test_every_number_type_makes_the_round_trip,
    test_everything_that_can_be_read,
    test_grpc_messages_may_be_compressed,
    test_http_bodies_may_be_compressed_both_ways,
    test_http_mixes_json_and_binary,
    test_models_are_loaded_and_unloaded,
    test_priority_timeout_and_parameters_are_accepted,
    test_text_makes_the_round_trip,
    test_the_asyncio_grpc_client_and_its_streams,
    test_the_asyncio_http_client,
)


@pytest.fixture(scope="module")
def server(edge: EdgeServer) -> EdgeServer:
    return edge
