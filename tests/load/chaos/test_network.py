"""A link on which everything gets lost: nobody is refused, and nobody is told."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from load.chaos.network import Namespace

_SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as server:
    print("ready", flush=True)
    while True:
        server.accept()[0].close()
"""


@pytest.fixture
def network() -> Iterator[Namespace]:
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("a network namespace takes root, ip and tc")
    made = Namespace(f"pst{os.getpid()}", "10.79.1")
    try:
        made.make()
        yield made
    except subprocess.CalledProcessError:
        pytest.skip("network namespaces cannot be made here")
    finally:
        made.remove()


@pytest.fixture
def server(network: Namespace) -> Iterator[tuple[str, int]]:
    command = [*network.prefix, sys.executable, "-c", _SERVER, network.inside]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield network.inside, 7000
        child.kill()


def test_what_is_lost_hangs_and_what_is_delivered_again_arrives(
    network: Namespace, server: tuple[str, int]
) -> None:
    socket.create_connection(server, 5.0).close()
    network.lose()
    with pytest.raises(TimeoutError):
        socket.create_connection(server, 0.5)
    network.deliver()
    socket.create_connection(server, 5.0).close()
