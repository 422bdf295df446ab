from __future__ import annotations

import asyncio

import pytest

from load.http1 import Response, connect, request_bytes
from tests.load.server import response, serving


async def test_the_server_receives_the_request_as_it_was_built() -> None:
    async with serving(lambda _: response(200, b"ok")) as seen:
        connection = await connect("127.0.0.1", seen.port)
        request = request_bytes("POST", "/a/b", "host:1", {"x-one": "1"}, b"\x00\xff\r\n\r\nbody")
        answer = await connection.ask(request)
        connection.close()
    assert (answer.status, answer.body) == (200, b"ok")
    assert seen.heads == [
        b"POST /a/b HTTP/1.1\r\nhost: host:1\r\nx-one: 1\r\ncontent-length: 10\r\n\r\n"
    ]
    assert seen.bodies == [b"\x00\xff\r\n\r\nbody"]


def test_a_get_without_a_body_claims_no_length_and_a_post_without_one_claims_zero() -> None:
    assert request_bytes("GET", "/", "h") == b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
    assert request_bytes("POST", "/", "h").endswith(b"\r\ncontent-length: 0\r\n\r\n")


async def test_many_requests_share_one_connection_and_each_gets_its_own_answer() -> None:
    async with serving(lambda body: response(200, body)) as seen:
        connection = await connect("127.0.0.1", seen.port)
        for number in range(20):
            body = b"%d" % number
            assert (await connection.ask(request_bytes("POST", "/", "h", {}, body))).body == body
        connection.close()
    assert seen.connections == 1


@pytest.mark.parametrize("chunk", [1, 7, 4096])
async def test_an_answer_that_comes_in_pieces_is_put_together(chunk: int) -> None:
    body = bytes(range(256)) * 3
    whole = response(503, body, b"Retry-After: 2\r\n")
    async with serving(lambda _: whole, chunk) as seen:
        connection = await connect("127.0.0.1", seen.port)
        answer = await connection.ask(request_bytes("GET", "/", "h"))
        connection.close()
    assert answer.status == 503
    assert answer.body == body
    assert answer.headers[b"retry-after"] == b"2"


async def test_a_chunked_answer_is_read() -> None:
    whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    async with serving(lambda _: whole) as seen:
        connection = await connect("127.0.0.1", seen.port)
        assert (await connection.ask(request_bytes("GET", "/", "h"))).body == b"abcde"
        connection.close()


async def test_the_next_request_may_be_sent_from_the_callback_of_the_last() -> None:
    bodies: list[bytes] = []
    ended = asyncio.Event()
    async with serving(lambda body: response(200, body)) as seen:
        connection = await connect("127.0.0.1", seen.port)

        def answered(answer: Response | None) -> None:
            assert answer is not None
            bodies.append(answer.body)
            if len(bodies) == 5:
                ended.set()
            else:
                send(len(bodies))

        def send(number: int) -> None:
            connection.exchange(request_bytes("POST", "/", "h", {}, b"%d" % number), answered)

        send(0)
        await ended.wait()
        connection.close()
    assert bodies == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_connection_lost_before_the_answer_is_an_error_and_the_connection_is_closed() -> (
    None
):
    async with serving(lambda _: None) as seen:
        connection = await connect("127.0.0.1", seen.port)
        with pytest.raises(ConnectionError):
            await connection.ask(request_bytes("GET", "/", "h"))
        assert not connection.is_open
        with pytest.raises(ConnectionError):
            await connection.ask(request_bytes("GET", "/", "h"))


async def test_an_answer_that_is_not_http_is_an_error() -> None:
    async with serving(lambda _: b"SSH-2.0-nonsense\r\n\r\n") as seen:
        connection = await connect("127.0.0.1", seen.port)
        with pytest.raises(ConnectionError):
            await connection.ask(request_bytes("GET", "/", "h"))


async def test_an_answer_that_ends_the_connection_is_still_an_answer() -> None:
    whole = response(200, b"bye", b"connection: close\r\n")
    async with serving(lambda _: whole) as seen:
        connection = await connect("127.0.0.1", seen.port)
        assert (await connection.ask(request_bytes("GET", "/", "h"))).body == b"bye"
        assert not connection.is_open


async def test_a_second_request_at_the_same_time_is_refused() -> None:
    async with serving(lambda _: response(200, b"")) as seen:
        connection = await connect("127.0.0.1", seen.port)
        request = request_bytes("GET", "/", "h")
        connection.exchange(request, lambda _: None)
        with pytest.raises(RuntimeError):
            connection.exchange(request, lambda _: None)
        connection.close()
