"""A gateway as an entry client sees one: a real process on loopback, as slow as it is told to be.

`python -m tests.edge_runtime.entry.gateway FOLDER PORT [CERTIFICATE KEY]` answers what
FOLDER/control.json says, read for every request, and notes each request in FOLDER/requests.
"""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Noted:
    """A request that came. at: when, for order only."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str


@dataclass
class Gateway:
    """A process, its address, and how it behaves."""

    folder: Path
    port: int
    tls: tuple[Path, Path] | None = None
    process: subprocess.Popen[str] | None = None
    control: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}"

    def start(self) -> None:
        self.launch()
        self.wait()

    def launch(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.behave()
        files = [str(path) for path in self.tls or ()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.folder), str(self.port), *files],
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> None:
        """Wait until it listens."""
        assert self.process is not None
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "listening\n"

    def behave(self, **control: Any) -> None:
        """Change how it answers: delay_s, is_ready, sites; of inference hang_s, refuse, location,
        cuts; closes; floods, of its health."""
        self.control |= control
        staged = self.folder / "control.new"
        staged.write_text(json.dumps(self.control))
        staged.replace(self.folder / "control.json")

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def noted(self, path: str = "/") -> list[Noted]:
        file = self.folder / "requests"
        lines = file.read_text().splitlines() if file.exists() else []
        found = [Noted(**json.loads(line)) for line in lines]
        return [each for each in found if each.path.startswith(path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else answers are up to 40 ms late
    folder: Path

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        control = json.loads((self.folder / "control.json").read_text())
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        line = json.dumps(
            {"method": self.command, "path": self.path, "headers": headers,
             "body": body.decode("latin-1")}
        )  # fmt: skip
        with (self.folder / "requests").open("a") as file:
            file.write(line + "\n")
        time.sleep(control.get("delay_s", 0.0))
        if self.path == "/v2/health/ready":
            self._say(200 if control.get("is_ready", True) else 503, {})
        elif self.path == "/v1/sites" and "sites" in control:
            self._say(200, control["sites"])
        elif self.path.endswith("/infer"):
            time.sleep(control.get("hang_s", 0.0))
            status, document = control.get("refuse") or (200, {"outputs": [], "heard": len(body)})
            self._say(status, document)
        else:
            self._say(404, {"error": "no such route", "code": "not_found"})

    def _say(self, status: int, document: object) -> None:
        content = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        control = json.loads((self.folder / "control.json").read_text())
        self.send_response(status)
        if status in (307, 308):
            self.send_header("location", control["location"])
        if control.get("closes"):
            self.send_header("connection", "close")
        if control.get("floods") and self.path == "/v2/health/ready":
            content = bytes(10_000_000)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        is_cut = control.get("cuts") and self.path.endswith("/infer")
        self.wfile.write(content[:-1] if is_cut else content)
        self.close_connection = self.close_connection or bool(is_cut)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away in these tests."""


def main() -> None:
    folder, port, *tls = sys.argv[1:]
    _Handler.folder = Path(folder)
    server = _Server(("127.0.0.1", int(port)), _Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
