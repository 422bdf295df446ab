"""What every server of the Open Inference Protocol v2 here must do, over REST and gRPC alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edge_runtime.protocol.gate import HOLD_S
from tests.contract.clients import Answer, Ask, Client, GrpcClient, Refused, RestClient
from tests.contract.live import LiveServer, Server
from tests.contract.models import CLASSES, FEATURES, mlp_weights
from tests.contract.tensors import DATATYPES, Given, example

STATUS = {
    "invalid_input": ("400", "INVALID_ARGUMENT"),
    "unsupported": ("400", "UNIMPLEMENTED"),
    "unauthenticated": ("401", "UNAUTHENTICATED"),
    "forbidden": ("403", "PERMISSION_DENIED"),
    "not_found": ("404", "NOT_FOUND"),
    "too_large": ("413", "RESOURCE_EXHAUSTED"),
    "corrupt": ("500", "DATA_LOSS"),
    "overloaded": ("503", "UNAVAILABLE"),
    "unavailable": ("503", "UNAVAILABLE"),
    "deadline_exceeded": ("504", "DEADLINE_EXCEEDED"),
}


@pytest.fixture(params=[RestClient, GrpcClient], ids=["rest", "grpc"])
def client(request: pytest.FixtureRequest, server: Server) -> Client:
    address = server.rest if request.param is RestClient else server.grpc
    made: Client = request.param(address, server.bearer)
    return made


def floats(name: str, *shape: int, value: float = 1.0) -> Given:
    return Given(name, "FP32", np.full(shape, value, np.float32))


def refused(client: Client, code: str, ask: Callable[[], object]) -> Refused:
    """Check that a call is refused with a code and the status that belongs to it."""
    with pytest.raises(Refused) as caught:
        ask()
    http, grpc = STATUS[code]
    assert (caught.value.code, caught.value.status) == (
        code,
        http if client.name == "rest" else grpc,
    )
    assert caught.value.message
    return caught.value


def wait_until(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


class TestHealthAndMetadata:
    def test_health_is_open_to_everybody(self, client: Client) -> None:
        stranger = client.using({})
        assert stranger.live()
        assert stranger.ready()

    def test_the_server_says_what_it_offers(self, client: Client, server: Server) -> None:
        found = client.server_metadata()
        assert found["name"] == server.name
        assert found["version"] == server.version
        assert {"classification", "model_repository", "statistics"} <= set(found["extensions"])

    def test_a_loaded_model_is_ready_with_and_without_its_version(self, client: Client) -> None:
        assert client.model_ready("mlp")
        assert client.model_ready("mlp", "1")

    def test_a_known_model_that_is_not_loaded_is_not_ready(self, client: Client) -> None:
        assert not client.model_ready("broken")

    def test_metadata_names_tensors_with_free_dimensions(self, client: Client) -> None:
        found = client.model_metadata("mlp")
        assert (found["name"], list(found["versions"])) == ("mlp", ["1"])
        (only,) = found["inputs"]
        assert (only["name"], only["datatype"]) == ("x", "FP32")
        assert [int(dim) for dim in only["shape"]] == [-1, FEATURES]

    def test_the_configuration_leaves_the_batch_dimension_out(self, client: Client) -> None:
        found = client.model_config("mlp", "1")
        assert found["max_batch_size"] == 8
        assert found["input"][0]["data_type"] == "TYPE_FP32"
        assert [int(dim) for dim in found["input"][0]["dims"]] == [FEATURES]
        assert "dynamic_batching" in found

    def test_a_model_that_does_not_batch_says_so(self, client: Client) -> None:
        found = client.model_config("fixed")
        assert found["max_batch_size"] == 0
        assert [int(dim) for dim in found["input"][0]["dims"]] == [2, 3]

    def test_bytes_are_called_strings_in_the_configuration(self, client: Client) -> None:
        assert client.model_config("identity_BYTES")["input"][0]["data_type"] == "TYPE_STRING"


class TestInference:
    @pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
    @pytest.mark.parametrize("datatype", DATATYPES)
    def test_every_datatype_comes_back_bit_by_bit(
        self, client: Client, datatype: str, is_raw: bool
    ) -> None:
        data = example(datatype)
        given = Given("x", datatype, data)
        answer = client.infer(Ask(f"identity_{datatype}", [given], is_raw=is_raw))
        found = answer.outputs["y"]
        assert found.datatype == datatype
        assert found.data.shape == data.shape
        if datatype == "BYTES":
            assert found.data.tolist() == data.tolist()
        else:
            assert found.data.tobytes() == data.tobytes()

    def test_an_answer_is_what_the_model_computes(self, client: Client) -> None:
        data = np.random.default_rng(1).standard_normal((5, FEATURES)).astype(np.float32)
        answer = client.infer(Ask("mlp", [Given("x", "FP32", data)]))
        hidden, out = mlp_weights()
        wanted = np.maximum(data @ hidden, 0) @ out
        np.testing.assert_allclose(answer.outputs["scores"].data, wanted, rtol=1e-5, atol=1e-5)

    def test_an_answer_says_what_computed_it_and_where(
        self, client: Client, server: Server
    ) -> None:
        answer = client.infer(Ask("mlp", [floats("x", 1, FEATURES)], id="ä 42"))
        assert (answer.model, answer.version, answer.id) == ("mlp", "1", "ä 42")
        assert answer.parameters["prime_spark_target"] == server.target
        assert answer.parameters["prime_spark_reason"] == server.reason

    def test_outputs_come_in_the_order_asked_for(self, client: Client) -> None:
        inputs = [floats("a", 2, 3, value=5.0), floats("b", 2, 3, value=2.0)]
        both = client.infer(Ask("add_sub", inputs))
        assert list(both.outputs) == ["sum", "difference"]
        turned = client.infer(Ask("add_sub", inputs, {"difference": {}, "sum": {}}))
        assert list(turned.outputs) == ["difference", "sum"]
        one = client.infer(Ask("add_sub", inputs, {"difference": {}}))
        assert {n: float(g.data[1, 2]) for n, g in one.outputs.items()} == {"difference": 3.0}

    def test_inputs_are_found_by_name(self, client: Client) -> None:
        inputs = [floats("b", 1, 1, value=2.0), floats("a", 1, 1, value=5.0)]
        assert client.infer(Ask("add_sub", inputs)).outputs["difference"].data.item() == 3.0

    def test_a_model_without_a_batch_dimension_is_served(self, client: Client) -> None:
        data = np.arange(6, dtype=np.int32).reshape(2, 3)
        answer = client.infer(Ask("fixed", [Given("x", "INT32", data)]))
        assert answer.outputs["y"].data.tolist() == (-data).tolist()

    @pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
    def test_an_empty_dimension_is_a_tensor_too(self, client: Client, is_raw: bool) -> None:
        given = Given("x", "FP32", np.empty((2, 0), np.float32))
        answer = client.infer(Ask("identity_FP32", [given], is_raw=is_raw))
        assert answer.outputs["y"].data.shape == (2, 0)

    def test_classification_gives_the_best_classes_first(self, client: Client) -> None:
        data = np.array([[1.0, 3.0, 2.0], [9.0, 7.0, 8.0]], np.float32)
        ask = Ask("identity_FP32", [Given("x", "FP32", data)], {"y": {"classification": 2}})
        found = client.infer(ask).outputs["y"]
        assert found.datatype == "BYTES"
        parsed = [
            [(float(s), int(c)) for s, c in (e.split(b":") for e in row)] for row in found.data
        ]
        assert parsed == [[(3.0, 1), (2.0, 2)], [(9.0, 0), (8.0, 2)]]

    def test_stacking_requests_changes_no_answer(self, client: Client) -> None:
        rng = np.random.default_rng(3)
        asked = [rng.standard_normal((1 + n % 3, FEATURES)).astype(np.float32) for n in range(24)]
        alone = [client.infer(Ask("mlp", [Given("x", "FP32", data)])) for data in asked]
        with ThreadPoolExecutor(8) as pool:
            together = list(
                pool.map(lambda d: client.infer(Ask("mlp", [Given("x", "FP32", d)])), asked)
            )
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(
                one.outputs["scores"].data, other.outputs["scores"].data, rtol=1e-5, atol=1e-6
            )

    def test_what_json_cannot_carry_can_be_had_raw(self, client: Client) -> None:
        ask = Ask("log", [floats("x", 1, 1, value=-1.0)], is_raw=True)
        assert np.isnan(client.infer(ask).outputs["y"].data.item())


class TestRefusals:
    def test_an_unknown_model_is_not_found(self, client: Client) -> None:
        said = refused(client, "not_found", lambda: client.infer(Ask("nope", [floats("x", 1)])))
        assert said.field == "model"
        refused(client, "not_found", lambda: client.model_metadata("nope"))
        refused(client, "not_found", lambda: client.model_ready("nope"))
        refused(client, "not_found", lambda: client.model_config("nope"))
        refused(client, "not_found", lambda: client.statistics("nope"))

    def test_an_unknown_version_is_not_found(self, client: Client) -> None:
        ask = Ask("mlp", [floats("x", 1, FEATURES)], version="99")
        assert refused(client, "not_found", lambda: client.infer(ask)).field == "version"

    @pytest.mark.parametrize(
        ("given", "field"),
        [
            (floats("x", 1, FEATURES + 1), "x"),
            (floats("x", FEATURES), "x"),
            (floats("z", 1, FEATURES), "x"),
            (Given("x", "FP64", np.ones((1, FEATURES))), "x"),
            (floats("x", 0, FEATURES), "x"),
        ],
        ids=["wrong width", "wrong rank", "wrong name", "wrong datatype", "empty batch"],
    )
    def test_a_tensor_that_does_not_fit_is_named(
        self, client: Client, given: Given, field: str
    ) -> None:
        said = refused(client, "invalid_input", lambda: client.infer(Ask("mlp", [given])))
        assert said.field == field

    def test_a_second_input_must_have_the_same_batch(self, client: Client) -> None:
        ask = Ask("add_sub", [floats("a", 2, 3), floats("b", 1, 3)])
        assert refused(client, "invalid_input", lambda: client.infer(ask)).field == "b"

    def test_an_unknown_output_is_named(self, client: Client) -> None:
        ask = Ask("mlp", [floats("x", 1, FEATURES)], {"nope": {}})
        assert refused(client, "invalid_input", lambda: client.infer(ask)).field == "nope"

    def test_the_same_input_twice_is_refused(self, client: Client) -> None:
        ask = Ask("mlp", [floats("x", 1, FEATURES), floats("x", 1, FEATURES)])
        assert refused(client, "invalid_input", lambda: client.infer(ask)).field == "inputs"

    def test_no_input_at_all_is_refused(self, client: Client) -> None:
        assert (
            refused(client, "invalid_input", lambda: client.infer(Ask("mlp", []))).field == "inputs"
        )

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_numbers_that_are_not_finite_are_refused(self, client: Client, value: float) -> None:
        ask = Ask("mlp", [floats("x", 1, FEATURES, value=value)])
        assert refused(client, "invalid_input", lambda: client.infer(ask)).field == "x"

    def test_bytes_that_are_not_text_do_not_reach_a_text_model(self, client: Client) -> None:
        data = np.array([[b"\xff\xfe"]], np.object_)
        ask = Ask("identity_BYTES", [Given("x", "BYTES", data)])
        assert refused(client, "invalid_input", lambda: client.infer(ask)).field == "x"

    @pytest.mark.parametrize(
        ("parameters", "field"),
        [
            ({"timeout": -1}, "timeout"),
            ({"timeout": "soon"}, "timeout"),
            ({"priority": -1}, "priority"),
        ],
    )
    def test_a_parameter_out_of_range_is_named(
        self, client: Client, parameters: dict[str, object], field: str
    ) -> None:
        ask = Ask("mlp", [floats("x", 1, FEATURES)], parameters=parameters)
        assert refused(client, "invalid_input", lambda: client.infer(ask)).field == field

    @pytest.mark.parametrize(
        "headers",
        [
            {"prime-spark-timeout-ms": "0"},
            {"prime-spark-timeout-ms": "soon"},
            {"prime-spark-tier": "moon"},
            {"prime-spark-site": "x" * 65},
        ],
    )
    def test_a_header_out_of_range_is_named(self, client: Client, headers: dict[str, str]) -> None:
        ask = Ask("mlp", [floats("x", 1, FEATURES)], headers=headers)
        said = refused(client, "invalid_input", lambda: client.infer(ask))
        assert said.field == next(iter(headers))

    def test_more_tensors_than_allowed_are_refused(self, client: Client) -> None:
        ask = Ask("mlp", [floats(f"x{n}", 1, 1) for n in range(9)])
        assert refused(client, "invalid_input", lambda: client.infer(ask)).field == "inputs"

    def test_shared_memory_is_not_offered(self, client: Client) -> None:
        ask = Ask("mlp", [floats("x", 1, FEATURES)], {"scores": {"shared_memory_region": "r"}})
        refused(client, "unsupported", lambda: client.infer(ask))


class TestLimits:
    def test_a_body_over_the_limit_is_refused_and_the_next_one_served(
        self, client: Client, server: Server
    ) -> None:
        rows = server.limits.max_body_bytes // 4
        with pytest.raises(Refused) as caught:
            client.infer(Ask("identity_FP32", [floats("x", 1, rows)]))
        assert caught.value.status in ("413", "RESOURCE_EXHAUSTED")
        client.infer(Ask("mlp", [floats("x", 1, FEATURES)]))

    def test_the_part_that_is_parsed_has_a_smaller_limit(
        self, client: Client, server: Server
    ) -> None:
        count = server.limits.max_json_bytes // 2
        ask = Ask("identity_FP32", [floats("x", 1, count, value=0.5)], is_raw=False)
        assert refused(client, "too_large", lambda: client.infer(ask)).field == "body"

    def test_memory_set_aside_for_requests_is_given_back(
        self, client: Client, server: Server
    ) -> None:
        for rows in (1, 1000, 100_000):
            client.infer(Ask("identity_FP32", [floats("x", rows, 1)]))
        with pytest.raises(Refused):
            client.infer(Ask("identity_FP32", [floats("nope", 1000, 1)]))
        wait_until(lambda: server.body_bytes() == 0)


class TestMemoryOfOneProcess:
    """What can only be arranged inside the server's own process."""

    def test_when_that_memory_is_taken_requests_are_turned_away_for_now(
        self, client: Client, server: LiveServer
    ) -> None:
        free = server.limits.max_inflight_bytes - server.budget.used
        server.budget.take(free)
        try:
            ask = Ask("mlp", [floats("x", 1, FEATURES)])
            began = time.monotonic()
            said = refused(client, "overloaded", lambda: client.infer(ask))
            assert time.monotonic() - began >= HOLD_S * 0.9  # who asks again at once is slowed
            assert said.retry_after == "1"
        finally:
            server.budget.give_back(free)
        client.infer(ask)


class TestCallers:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"authorization": "Bearer nonsense"},
            {"authorization": "Basic dXNlcjpwdw=="},
            {"x-api-key": "ps_unknown"},
        ],
        ids=["nothing", "no token", "wrong scheme", "unknown key"],
    )
    def test_whoever_proves_nothing_gets_nothing(
        self, client: Client, headers: dict[str, str]
    ) -> None:
        stranger = client.using(headers)
        for ask in (
            stranger.server_metadata,
            stranger.index,
            stranger.statistics,
            lambda: stranger.model_ready("mlp"),
            lambda: stranger.model_metadata("mlp"),
            lambda: stranger.model_config("mlp"),
            lambda: stranger.infer(Ask("mlp", [floats("x", 1, FEATURES)])),
            lambda: stranger.load("mlp", {}),
        ):
            refused(client, "unauthenticated", ask)

    def test_a_token_of_another_key_does_not_hold(self, client: Client) -> None:
        token = client.using(
            {"authorization": "Bearer " + "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.AAAA"}
        )
        refused(client, "unauthenticated", token.server_metadata)

    def test_an_api_key_is_as_good_as_a_token(self, client: Client, server: Server) -> None:
        holder = client.using({"x-api-key": server.api_key})
        holder.infer(Ask("mlp", [floats("x", 1, FEATURES)]))

    def test_loading_models_takes_a_scope_of_its_own(self, client: Client, server: Server) -> None:
        caller = client.using({"authorization": f"Bearer {server.token(['infer'])}"})
        refused(client, "forbidden", lambda: caller.load("add_sub", {}))
        refused(client, "forbidden", lambda: caller.unload("add_sub", {}))

    def test_inference_takes_a_scope_of_its_own(self, client: Client, server: Server) -> None:
        caller = client.using({"authorization": f"Bearer {server.token(['metrics:read'])}"})
        ask = Ask("mlp", [floats("x", 1, FEATURES)])
        refused(client, "forbidden", lambda: caller.infer(ask))


class TestDeadlinesAndCancelling:
    def test_a_deadline_in_the_header_ends_a_long_computation(
        self, client: Client, server: Server
    ) -> None:
        ask = _long(headers={"prime-spark-timeout-ms": "150"})
        refused(client, "deadline_exceeded", lambda: client.infer(ask))
        wait_until(lambda: server.busy() == 0)

    def test_a_deadline_in_the_parameters_ends_a_long_computation(
        self, client: Client, server: Server
    ) -> None:
        ask = _long(parameters={"timeout": 150_000})
        refused(client, "deadline_exceeded", lambda: client.infer(ask))
        wait_until(lambda: server.busy() == 0)

    def test_the_header_wins_over_the_parameter(self, client: Client) -> None:
        steps = Given("steps", "INT64", np.array([50]))
        headers = {"prime-spark-timeout-ms": "20000"}
        client.infer(Ask("slow", [steps], parameters={"timeout": 1}, headers=headers))


class TestRepository:
    def test_the_index_tells_what_is_ready_and_what_is_not(self, client: Client) -> None:
        states = {(e["name"], e["version"]): e["state"] for e in client.index()}
        assert states["mlp", "1"] == "READY"
        assert states["broken", "1"] == "UNAVAILABLE"
        assert ("broken", "1") not in {(e["name"], e["version"]) for e in client.index(ready=True)}

    def test_a_version_is_loaded_asked_and_unloaded_while_serving(self, client: Client) -> None:
        ask = Ask("add_sub", [floats("a", 1, 1), floats("b", 1, 1)])
        assert client.infer(ask).version == "1"
        client.load("add_sub", {"version": "2"})
        try:
            assert client.infer(ask).version == "2"
            older = Ask("add_sub", ask.inputs, version="1")
            assert client.infer(older).version == "1"
            assert list(client.model_metadata("add_sub")["versions"]) == ["1", "2"]
        finally:
            client.unload("add_sub", {"version": "2"})
        assert client.infer(ask).version == "1"
        newer = Ask("add_sub", ask.inputs, version="2")
        said = refused(client, "unavailable", lambda: client.infer(newer))
        assert int(said.retry_after or 0) > 0

    def test_what_cannot_be_loaded_is_refused_and_remembered(self, client: Client) -> None:
        refused(client, "corrupt", lambda: client.load("broken", {}))
        (entry,) = (e for e in client.index() if e["name"] == "broken")
        assert "cannot open" in entry["reason"]

    def test_loading_takes_no_configuration_from_the_caller(self, client: Client) -> None:
        refused(client, "unsupported", lambda: client.load("mlp", {"config": "{}"}))

    def test_loading_an_unknown_model_or_version_is_not_found(self, client: Client) -> None:
        refused(client, "not_found", lambda: client.load("nope", {}))
        refused(client, "not_found", lambda: client.load("mlp", {"version": "99"}))
        refused(client, "not_found", lambda: client.unload("nope", {}))


class TestStatistics:
    def test_counters_grow_by_what_was_asked(self, client: Client) -> None:
        ask = Ask("fixed", [Given("x", "INT32", np.zeros((2, 3), np.int32))])
        before = _count(client, "fixed")
        for _ in range(3):
            client.infer(ask)
        assert _count(client, "fixed") == before + 3

    def test_every_loaded_model_has_counters(self, client: Client) -> None:
        found = {entry["name"] for entry in client.statistics()}
        assert {"mlp", "fixed", "slow"} <= found
        assert "broken" not in found

    def test_times_are_reported_for_every_stage(self, client: Client) -> None:
        client.infer(Ask("mlp", [floats("x", 2, FEATURES)]))
        (entry,) = client.statistics("mlp")
        stages = entry["inference_stats"]
        for stage in ("success", "fail", "queue", "compute_input", "compute_infer"):
            assert {"count", "ns"} <= set(stages[stage])
        assert int(stages["compute_infer"]["ns"]) > 0
        assert int(entry["last_inference"]) > 1_600_000_000_000
        assert any(int(batch["batch_size"]) == 2 for batch in entry["batch_stats"])


def test_both_transports_give_the_same_answer(server: Server) -> None:
    ask = Ask("mlp", [floats("x", 3, FEATURES, value=0.25)])
    answers: list[Answer] = [
        RestClient(server.rest, server.bearer).infer(ask),
        GrpcClient(server.grpc, server.bearer).infer(ask),
    ]
    first, second = (answer.outputs["scores"].data for answer in answers)
    assert first.shape == (3, CLASSES)
    assert first.tobytes() == second.tobytes()
    assert answers[0].parameters == answers[1].parameters


def test_many_callers_on_both_transports_are_all_answered(server: Server) -> None:
    answered = threading.Semaphore(0)

    def ask(number: int) -> None:
        kind = RestClient if number % 2 else GrpcClient
        address = server.rest if number % 2 else server.grpc
        client = kind(address, server.bearer)
        for _ in range(5):
            client.infer(Ask("mlp", [floats("x", 1, FEATURES, value=number)]))
            answered.release()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(16)))
    assert all(answered.acquire(blocking=False) for _ in range(80))


def _long(**kwargs: object) -> Ask:
    """Ask for minutes of work."""
    steps = Given("steps", "INT64", np.array([1_000_000]))
    return Ask("slow", [steps], **kwargs)  # type: ignore[arg-type]


def _count(client: Client, model: str) -> int:
    (entry,) = client.statistics(model)
    return int(entry["inference_stats"]["success"]["count"])
