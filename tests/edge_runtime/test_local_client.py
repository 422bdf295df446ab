"""Asking over a Unix socket: what is refused, absent, slow or no runtime at all is told apart."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

import pytest

from edge_runtime.errors import NotFound, PrimeSparkError, Unavailable
from edge_runtime.local_client import NotRunning, ask


class Answers(UnixStreamServer):
    """An HTTP server that gives one status and body, and keeps what it was asked."""

    def __init__(self, path: Path, status: int, body: bytes) -> None:
        self.status, self.body = status, body
        self.asked: list[tuple[str, str, bytes]] = []
        super().__init__(str(path), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        assert isinstance(self.server, Answers)
        sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, sent))
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def address_string(self) -> str:
        return "local"

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sock"


@contextmanager
def answering(path: Path, status: int = 200, body: bytes = b"") -> Iterator[Answers]:
    with Answers(path, status, body) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def listening(path: Path, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """Serve one connection by hand."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def test_a_document_is_returned_and_the_body_was_sent(path: Path) -> None:
    with answering(path, body=b'{"a": 1}') as server:
        assert ask(path, "POST", "/v2/x", {"b": "c"}) == {"a": 1}
        assert ask(path, "GET", "/v2/y") == {"a": 1}
    (method, route, sent), second = server.asked
    assert (method, route, json.loads(sent)) == ("POST", "/v2/x", {"b": "c"})
    assert second == ("GET", "/v2/y", b"")


def test_an_answer_without_a_body_is_none(path: Path) -> None:
    with answering(path):
        assert ask(path, "POST", "/") is None


def test_other_statuses_may_be_expected(path: Path) -> None:
    with answering(path, 503, b'{"status": "unready"}'):
        assert ask(path, "GET", "/healthz", expected=(200, 503)) == {"status": "unready"}


def test_what_was_refused_is_raised_with_its_hint_and_field(path: Path) -> None:
    body = json.dumps({"error": "not so", "hint": "do this", "field": "x"}).encode()
    with answering(path, 400, body), pytest.raises(PrimeSparkError, match="not so") as refused:
        ask(path, "POST", "/")
    assert (refused.value.hint, refused.value.field) == ("do this", "x")
    assert not isinstance(refused.value, Unavailable)


def test_what_is_not_there_is_not_found(path: Path) -> None:
    with answering(path, 404, b'{"error": "no model"}'), pytest.raises(NotFound, match="no model"):
        ask(path, "GET", "/")


@pytest.mark.parametrize("body", [b"", b"[]", b'"text"'])
def test_a_refusal_without_words_says_its_status(path: Path, body: bytes) -> None:
    with answering(path, 502, body), pytest.raises(PrimeSparkError, match="status 502"):
        ask(path, "GET", "/")


def test_what_answers_with_something_else_is_no_runtime(path: Path) -> None:
    with (
        answering(path, 200, b"<html>"),
        pytest.raises(Unavailable, match="is no edge runtime") as refused,
    ):
        ask(path, "GET", "/")
    assert not isinstance(refused.value, NotRunning)


def test_without_a_socket_nothing_runs_and_the_hint_says_how_to_start_it(path: Path) -> None:
    with pytest.raises(NotRunning) as refused:
        ask(path, "GET", "/")
    assert "prime-spark edge run" in str(refused.value.hint)


def test_a_socket_that_a_killed_process_left_is_nothing_that_runs(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with pytest.raises(NotRunning):
        ask(path, "GET", "/")


def test_a_runtime_that_is_slow_is_not_taken_for_one_that_is_not_there(path: Path) -> None:
    is_over = threading.Event()

    def talk(_: socket.socket) -> None:
        assert is_over.wait(30)

    with listening(path, talk):
        with pytest.raises(Unavailable, match="does not answer: timed out") as refused:
            ask(path, "GET", "/", timeout_s=0.05)
        is_over.set()
    assert not isinstance(refused.value, NotRunning)


@pytest.mark.parametrize(
    "sent", [b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"]
)
def test_a_connection_that_breaks_off_is_unavailable(path: Path, sent: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(sent)

    with listening(path, talk), pytest.raises(Unavailable, match="does not answer"):
        ask(path, "GET", "/")


@pytest.mark.parametrize("name", ["x" * 200, "file"])
def test_a_path_that_is_no_socket_is_unavailable(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable):
        ask(tmp_path / name, "GET", "/")


def test_nothing_stays_open_whatever_becomes_of_a_call(path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def try_it(*arguments: Any, **options: Any) -> None:
        with pytest.raises(PrimeSparkError):
            ask(*arguments, **options)

    with answering(path, 500, b"{}"):
        try_it(path, "GET", "/")
        before = descriptors()
        for _ in range(20):
            try_it(path, "GET", "/")
            try_it(path.with_name("nobody"), "GET", "/")
        assert descriptors() <= before
