"""An address of a gateway has one form, and says whether others can read what is sent there."""

from __future__ import annotations

import pytest

from edge_runtime.addresses import gateway_url, is_loopback, is_private_from_others
from edge_runtime.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://FRA.example.com", "https://fra.example.com:443"),
        (" https://fra.example.com:8000/ ", "https://fra.example.com:8000"),
        ("http://127.0.0.1", "http://127.0.0.1:80"),
        ("https://[2001:DB8::1]:8000", "https://[2001:db8::1]:8000"),
    ],
)
def test_an_address_is_brought_into_one_form(text: str, url: str) -> None:
    assert gateway_url(text) == gateway_url(url) == url


@pytest.mark.parametrize(
    "text",
    ["", "fra", "fra:8000", "ftp://fra", "https://", "https://fra:0", "https://fra:99999",
     "https://user@fra", "https://fra/v2", "https://fra?x=1", "https://fra#x", "https://fr a",
     "https://fra\r\nx", "https://-\u00fc", "https://a..b", "https://[fe80::1%25eth0]", "https://[x]"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        gateway_url(text)


@pytest.mark.parametrize(
    ("url", "local", "private"),
    [
        ("http://127.0.0.1:1", True, True),
        ("http://localhost:1", True, True),
        ("http://[::1]:1", True, True),
        ("http://127.0.0.1.example.com:1", False, False),
        ("http://10.0.0.1:1", False, False),
        ("https://10.0.0.1:1", False, True),
    ],
)
def test_plain_http_is_private_on_this_machine_only(url: str, local: bool, private: bool) -> None:
    assert (is_loopback(url), is_private_from_others(url)) == (local, private)
