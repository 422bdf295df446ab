"""Over TLS a client speaks to gateways whose certificate holds, and to no other."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.ports import free_port
from edge_runtime.entry import EntryClient
from edge_runtime.errors import InvalidInput, Unavailable
from tests.edge_runtime.entry.conftest import quick
from tests.edge_runtime.entry.gateway import Gateway


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(chain)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    made = Gateway(tmp_path / "gateway", free_port(), tls=(chain, key))
    made.start()
    yield made
    made.kill()


def test_a_gateway_is_used_when_its_certificate_is_known(gateway: Gateway) -> None:
    assert gateway.tls is not None
    with quick(gateway, ca=gateway.tls[0]) as client:
        assert client.infer("m", {}).gateway == gateway.url


def test_a_gateway_with_an_unknown_certificate_gets_nothing(gateway: Gateway) -> None:
    with quick(gateway) as client, pytest.raises(Unavailable, match="certificate"):
        client.infer("m", {})
    assert gateway.noted() == []


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    for content in (None, "nothing"):
        file = tmp_path / "ca.pem"
        if content is not None:
            file.write_text(content)
        with pytest.raises(InvalidInput) as error:
            EntryClient(["https://localhost"], ca=file)
        assert error.value.field == "ca"
