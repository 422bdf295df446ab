"""An entry client finds the nearest gateway, leaves one that fails, and comes back."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_runtime.entry import EntryClient
from edge_runtime.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    PrimeSparkError,
    Unauthenticated,
    Unavailable,
)
from tests.edge_runtime.entry.conftest import Region, current, quick, until

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]}
OVERLOADED = [503, {"error": "too much", "code": "overloaded", "hint": "later"}]


def test_it_enters_by_the_nearest_of_all_sites_though_it_was_told_of_the_farthest(
    gateways: Region, client: EntryClient
) -> None:
    near, _, _ = gateways
    answer = client.infer("digits", BODY, version="1", headers={"Prime-Spark-Site": "lab"})
    assert (answer.status, answer.gateway) == (200, near.url)
    (asked,) = near.noted("/v2/models")
    assert (asked.method, asked.path) == ("POST", "/v2/models/digits/versions/1/infer")
    assert asked.headers["prime-spark-site"] == "lab"
    assert 0 < int(asked.headers["prime-spark-timeout-ms"]) <= 30_000
    assert [seen.site for seen in client.gateways] == ["near", "middle", "far"]


def test_only_what_needs_the_credential_carries_it(gateways: Region, client: EntryClient) -> None:
    client.infer("digits", BODY)
    for gateway in gateways:
        for asked in gateway.noted():
            is_open = asked.path == "/v2/health/ready"
            assert asked.headers.get("authorization") == (None if is_open else "Bearer secret")


def test_a_token_is_asked_for_when_it_is_needed_and_a_key_serves_as_well(
    gateways: Region,
) -> None:
    near = gateways[0]
    numbers = itertools.count()
    with quick(near, token=lambda: f"token-{next(numbers)}") as client:
        client.infer("m", BODY)
        client.infer("m", BODY)
    with quick(near, token=None, api_key="ps_key") as client:
        client.infer("m", BODY)
    first, second, third = (asked.headers for asked in near.noted("/v2/models"))
    assert first["authorization"] != second["authorization"]
    assert "authorization" not in third
    assert third["x-api-key"] == "ps_key"


def test_binary_tensors_go_and_come_as_they_are(gateways: Region, client: EntryClient) -> None:
    answer = client.infer("m", b'{"inputs":[]}\x00\x01\xff', json_bytes=13)
    (asked,) = gateways[0].noted("/v2/models")
    assert asked.headers["inference-header-content-length"] == "13"
    assert asked.headers["content-type"] == "application/octet-stream"
    assert asked.body.encode("latin-1") == b'{"inputs":[]}\x00\x01\xff'
    split = answer._replace(headers={"inference-header-content-length": "2"}, body=b"{}\x00\x01")
    assert (split.json(), split.binary) == ({}, b"\x00\x01")


def test_no_request_is_lost_when_the_gateway_in_use_is_killed_and_it_is_used_again_later(
    gateways: Region, client: EntryClient
) -> None:
    near, middle, _ = gateways
    near.behave(hang_s=0.05)
    client.infer("m", BODY)
    with ThreadPoolExecutor(8) as threads:
        sent = [threads.submit(client.infer, "m", BODY) for _ in range(64)]
        until(lambda: len(near.noted("/v2/models")) > 16)
        near.kill()
        answers = [each.result() for each in sent]
    assert {answer.status for answer in answers} == {200}
    assert {answer.gateway for answer in answers} == {near.url, middle.url}
    assert current(client) == "middle"
    near.start()
    until(lambda: current(client) == "near")
    assert client.infer("m", BODY).gateway == near.url


def test_a_request_does_not_wait_for_a_gateway_that_has_gone_silent(
    gateways: Region, client: EntryClient
) -> None:
    near, middle, _ = gateways
    client.infer("m", BODY)
    near.pause()
    try:
        with ThreadPoolExecutor(4) as threads:
            sent = [threads.submit(client.infer, "m", BODY, timeout_s=100.0) for _ in range(4)]
            answers = [each.result() for each in sent]
        assert {answer.gateway for answer in answers} == {middle.url}
    finally:
        near.go_on()
    until(lambda: current(client) == "near")


def test_a_slow_answer_of_a_gateway_that_is_well_is_waited_for(
    gateways: Region, client: EntryClient
) -> None:
    near = gateways[0]
    near.behave(hang_s=2.0)  # four times the client's patience
    assert client.infer("m", BODY).gateway == near.url
    assert len(near.noted("/v2/models")) == 1


def test_a_client_that_moves_changes_its_gateway(gateways: Region, client: EntryClient) -> None:
    near, _, far = gateways
    client.infer("m", BODY)
    near.behave(delay_s=0.2)
    far.behave(delay_s=0.001)
    until(lambda: current(client) == "far")
    assert client.infer("m", BODY).gateway == far.url


def test_a_client_does_not_change_for_a_little(gateways: Region, client: EntryClient) -> None:
    near, middle, far = gateways
    near.behave(delay_s=0.10)
    middle.behave(delay_s=0.17)
    client.refresh()
    far.kill()
    assert current(client) == "near"
    near.behave(delay_s=0.18)
    for _ in range(5):
        client.refresh()
        assert current(client) == "near"


def test_a_gateway_that_is_not_ready_is_not_used(gateways: Region, client: EntryClient) -> None:
    near = gateways[0]
    near.behave(is_ready=False)
    client.refresh()
    assert client.infer("m", BODY).gateway == gateways[1].url
    near.behave(is_ready=True)
    until(lambda: current(client) == "near")


@pytest.mark.parametrize("refusal", [OVERLOADED, [502, "<html>"], [503, {"code": "target_lost"}]])
def test_what_one_gateway_cannot_serve_now_is_asked_of_the_next_without_leaving_it(
    gateways: Region, client: EntryClient, refusal: object
) -> None:
    near, middle, _ = gateways
    near.behave(refuse=refusal)
    assert client.infer("m", BODY).gateway == middle.url
    assert current(client) == "near"


def test_when_all_refuse_the_caller_hears_why(gateways: Region, client: EntryClient) -> None:
    for gateway in gateways:
        gateway.behave(refuse=OVERLOADED)
    with pytest.raises(Overloaded, match="too much") as error:
        client.infer("m", BODY)
    assert error.value.hint == "later"
    assert all(len(gateway.noted("/v2/models")) == 1 for gateway in gateways)


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        ([400, {"error": "bad", "code": "invalid_input", "field": "x"}], InvalidInput),
        ([401, {"error": "who", "code": "unauthenticated"}], Unauthenticated),
        ([404, {"error": "what", "code": "not_found"}], NotFound),
        ([504, {"error": "late", "code": "deadline_exceeded"}], DeadlineExceeded),
        ([504, "<html>"], DeadlineExceeded),
        ([418, "tea"], PrimeSparkError),
    ],
)
def test_what_would_not_get_better_elsewhere_is_not_repeated(
    gateways: Region, client: EntryClient, refusal: object, kind: type[PrimeSparkError]
) -> None:
    for gateway in gateways:
        gateway.behave(refuse=refusal)
    with pytest.raises(kind):
        client.infer("m", BODY)
    assert sum(len(gateway.noted("/v2/models")) for gateway in gateways) == 1


def test_the_deadline_holds_when_nothing_answers(gateways: Region) -> None:
    near = gateways[0]
    near.behave(sites={"sites": []})
    with quick(near) as client:
        near.behave(hang_s=60.0)
        with pytest.raises(DeadlineExceeded):
            client.infer("m", BODY, timeout_s=0.5)
        near.behave(hang_s=0.0)
        assert client.infer("m", BODY).status == 200


def test_without_any_gateway_the_error_names_each_and_a_later_one_is_found(
    gateways: Region,
) -> None:
    near = gateways[0]
    near.kill()
    with quick(near) as client:
        with pytest.raises(Unavailable, match=near.url):
            client.infer("m", BODY)
        near.start()
        until(lambda: any(not seen.problem for seen in client.gateways))
        assert client.infer("m", BODY).gateway == near.url


def test_requests_stay_in_the_zones_that_are_allowed(gateways: Region) -> None:
    near, middle, far = gateways
    with quick(near, zones=frozenset({"us"})) as client:
        client.refresh()
        assert client.infer("m", BODY).gateway == far.url
        far.kill()
        with pytest.raises(Unavailable):
            client.infer("m", BODY)
    assert not near.noted("/v2/models")
    assert not middle.noted("/v2/models")


def test_a_connection_that_was_closed_while_it_rested_is_opened_again(gateways: Region) -> None:
    near = gateways[0]
    with quick(near, probe_every_s=100.0) as client:
        client.infer("m", BODY)
        near.kill()
        near.start()  # the warm connection is dead, the gateway is not
        client.refresh()  # or a probe of the beginning, if it was cut off, counts against it
        assert client.infer("m", BODY).gateway == near.url
        near.behave(closes=True)
        assert [client.infer("m", BODY).gateway for _ in range(3)] == [near.url] * 3


def test_an_answer_that_breaks_off_is_asked_for_elsewhere(
    gateways: Region, client: EntryClient
) -> None:
    near, middle, _ = gateways
    near.behave(cuts=True)
    assert client.infer("m", BODY).gateway == middle.url


def test_a_gateway_whose_health_never_ends_is_not_used(
    gateways: Region, client: EntryClient
) -> None:
    near, middle, _ = gateways
    near.behave(floods=True)
    client.refresh()
    assert client.infer("m", BODY).gateway == middle.url


def test_a_redirect_is_an_answer_that_is_not_followed(
    gateways: Region, client: EntryClient
) -> None:
    near, _, far = gateways
    near.behave(refuse=[307, {}], location=f"{far.url}/v2/models/m/infer")
    assert client.infer("m", BODY).status == 307
    assert not far.noted("/v2/models")


def test_a_closed_client_ends_what_is_under_way_and_takes_no_more(gateways: Region) -> None:
    near = gateways[0]
    near.behave(hang_s=60.0)
    client = quick(near)
    failed: list[Exception] = []

    def send() -> None:
        try:
            client.infer("m", BODY, timeout_s=100.0)
        except Unavailable as error:
            failed.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    until(lambda: bool(near.noted("/v2/models")))
    client.close()
    sender.join()
    assert failed
    with pytest.raises(Unavailable, match="closed"):
        client.infer("m", BODY)
    client.close()


@pytest.mark.parametrize(
    ("body", "headers", "field"),
    [({"x": {1}}, {}, "body"), ({"x": float("nan")}, {}, "body"), ({}, {"a": "b\r\nc: d"}, "a")],
)
def test_a_request_that_cannot_be_sent_is_refused_by_name(
    client: EntryClient, body: dict[str, object], headers: dict[str, str], field: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        client.infer("m", body, headers=headers)
    assert error.value.field == field


def test_a_paused_seed_does_not_hold_up_the_others(gateways: Region) -> None:
    _, middle, far = gateways
    far.pause()
    with quick(far, middle, probe_timeout_s=3.0) as client:
        assert client.infer("m", BODY).gateway == middle.url  # the list was not read yet
        until(lambda: current(client) == "near")
    assert not far.noted("/v2/models")


def test_requests_with_short_deadlines_find_out_that_their_gateway_is_silent(
    gateways: Region,
) -> None:
    near, middle, _ = gateways
    with quick(near, probe_every_s=100.0) as client:
        client.refresh()
        near.pause()
        with pytest.raises(DeadlineExceeded):
            client.infer("m", BODY, timeout_s=0.1)  # shorter than the client's patience
        until(lambda: current(client) == "middle")
        assert client.infer("m", BODY).gateway == middle.url


def test_a_deadline_that_is_too_short_to_look_around_does_not_spoil_what_comes_after(
    gateways: Region,
) -> None:
    far = gateways[2]
    with quick(far) as client:
        with pytest.raises(DeadlineExceeded):
            client.infer("m", BODY, timeout_s=0.01)
        assert client.infer("m", BODY).status == 200
