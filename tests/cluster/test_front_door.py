"""The generated HAProxy configuration is one that HAProxy takes, and says what was set."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cluster import front_door
from cluster.config import Settings, load_settings
from cluster.home import Home
from cluster.ports import free_port
from edge_runtime.errors import InvalidInput
from edge_runtime.protocol.context import CLIENT_HEADER
from edge_runtime.protocol.gate import START_HEADER


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    found = Home.at(tmp_path / "home")
    found.make_run()
    yield found
    shutil.rmtree(found.run)


def settings(**overrides: object) -> Settings:
    return load_settings({}, {key.replace("__", "."): value for key, value in overrides.items()})


def certificate(folder: Path) -> tuple[Path, Path]:
    key, chain = folder / "key.pem", folder / "chain.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "1", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key),
         "-out", str(chain)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)
    return chain, key


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"address": "0.0.0.0", "gateway__max_replicas": 8},
        {"address": "::1", "front_door__header_timeout_s": 0.5},
    ],
)
def test_haproxy_takes_the_configuration(home: Home, overrides: dict[str, object]) -> None:
    front_door.write_configuration(home, settings(**overrides))
    assert home.front_door.stat().st_mode & 0o777 == 0o600
    done = subprocess.run(
        [*front_door.command(home), "-c"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_only_the_configured_address_is_bound(home: Home) -> None:
    text = front_door.configuration(home, settings(address="127.0.0.1"))
    binds = [line.split()[1] for line in text.splitlines() if line.strip().startswith("bind ")]
    assert binds == ["127.0.0.1:8000", "127.0.0.1:9000"]
    assert "stats" not in text


def test_a_key_that_others_can_read_is_refused(home: Home, tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    key.chmod(0o644)
    with pytest.raises(InvalidInput, match="can be read by others"):
        front_door.configuration(home, settings(tls__certificate=str(chain), tls__key=str(key)))


def test_a_certificate_without_its_key_is_refused(home: Home, tmp_path: Path) -> None:
    chain, _ = certificate(tmp_path)
    with pytest.raises(InvalidInput, match="belong together"):
        front_door.configuration(home, settings(tls__certificate=str(chain)))


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_without_a_gateway_clients_get_the_protocols_error(
    home: Home, tmp_path: Path, is_tls: bool
) -> None:
    rest, grpc = free_port(), free_port()
    overrides: dict[str, object] = {"ports__rest": rest, "ports__grpc": grpc}
    verify: str | bool = True
    if is_tls:
        chain, key = certificate(tmp_path)
        overrides |= {"tls__certificate": str(chain), "tls__key": str(key)}
        verify = str(chain)
    front_door.write_configuration(home, settings(**overrides))
    door = subprocess.Popen(front_door.command(home), stdout=subprocess.DEVNULL, stderr=2)
    try:
        address = f"{'https' if is_tls else 'http'}://localhost:{rest}"
        answer = asyncio.run(_ask(f"{address}/v2/health/live", verify))
    finally:
        door.terminate()
        door.wait(10)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert json.loads(answer.content)["code"] == "unavailable"


async def test_what_the_gateway_believes_is_written_here_whatever_a_sender_wrote(
    home: Home,
) -> None:
    seen: list[bytes] = []
    clients: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        stamps = [line.split(b":")[1].strip() for line in head if line.startswith(b"x-request-st")]
        if stamps:  # checks of the front door itself have none
            seen.append(b" ".join(stamps))
            clients.extend(line for line in head if line.startswith(b"x-forwarded-for"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    gateway = await asyncio.start_unix_server(answer, home.gateway_http_socket(0))
    rest = free_port()
    front_door.write_configuration(home, settings(ports__rest=rest, ports__grpc=free_port()))
    door = await asyncio.create_subprocess_exec(
        *front_door.command(home), stdout=subprocess.DEVNULL
    )
    try:
        url = f"http://localhost:{rest}/v2"
        for _ in range(40):
            answered = await _ask(url, verify=True, stamp="t=1")
            if answered.status_code == 200:
                break
            await asyncio.sleep(0.25)
    finally:
        door.terminate()
        await door.wait()
        gateway.close()
    assert answered.status_code == 200
    assert clients in ([b"x-forwarded-for: 127.0.0.1"], [b"x-forwarded-for: ::1"])
    (stamp,) = seen
    assert abs(time.time() - int(stamp.removeprefix(b"t=")) / 1e3) < 60.0


async def _ask(url: str, verify: str | bool, stamp: str | None = None) -> httpx.Response:
    import ssl

    context = ssl.create_default_context(cafile=verify) if isinstance(verify, str) else True
    until = time.monotonic() + 20.0
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        while True:
            try:
                headers = [] if stamp is None else [(START_HEADER, stamp)]
                headers += [(CLIENT_HEADER, "192.0.2.1"), (CLIENT_HEADER, "192.0.2.2")]
                return await client.get(url, headers=headers)
            except httpx.ConnectError:
                assert time.monotonic() < until, "the front door did not start"
                await asyncio.sleep(0.05)


def test_paths_of_the_slots_are_in_the_configuration(home: Home) -> None:
    text = front_door.configuration(home, settings(gateway__max_replicas=3))
    for slot in range(3):
        assert f"unix@{home.gateway_http_socket(slot)} " in text
        assert f"unix@{home.gateway_grpc_socket(slot)} proto h2" in text
    assert os.fsencode(home.run) in text.encode()
