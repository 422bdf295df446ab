"""Which gateways a client may use: nobody gets the credential that should not have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.entry.sitelist import MOST, Gateway, load, read_list, save, seeds_of
from edge_runtime.errors import InvalidInput, Unavailable
from tests.edge_runtime.entry.conftest import Region, quick

SOURCE = "https://seed.example.com:443"
BODY: dict[str, object] = {"inputs": []}


def document(*urls: str) -> dict[str, Any]:
    gateways = [{"url": url, "answers": None} for url in urls]
    return {"site": "a", "sites": [{"name": "a", "zone": None, "gateways": gateways}]}


@pytest.mark.parametrize("seeds", [[], ["nonsense"], ["http://192.168.1.7:8000"]])
def test_seeds_that_are_none_or_in_the_open_are_refused(seeds: list[str]) -> None:
    with pytest.raises(InvalidInput):
        seeds_of(seeds, allow_http=False)


def test_plain_http_is_taken_on_this_machine_and_where_it_was_asked_for() -> None:
    assert seeds_of(["http://127.0.0.1:1"], allow_http=False)
    assert seeds_of(["http://192.168.1.7:8000"], allow_http=True)


@pytest.mark.parametrize(
    ("url", "source", "allow_http", "is_used"),
    [
        ("https://b.example.com", SOURCE, False, True),
        ("http://b.example.com", SOURCE, False, False),
        ("http://b.example.com", SOURCE, True, True),
        ("http://127.0.0.1:9", SOURCE, True, False),
        ("https://localhost:9", SOURCE, False, False),
        ("http://127.0.0.1:9", "http://localhost:1", False, True),
    ],
)
def test_a_list_cannot_send_the_credential_into_the_open_or_to_the_clients_own_machine(
    url: str, source: str, allow_http: bool, is_used: bool
) -> None:
    found = read_list(document("https://a.example.com", url), source, allow_http=allow_http)
    assert (len(found) == 2) == is_used


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "sites",
        {},
        {"sites": {}},
        {"sites": [1]},
        {"sites": [{"name": "a", "zone": None}]},
        {"sites": [{"name": 1, "zone": None, "gateways": [{"url": "https://a"}]}]},
        {"sites": [{"name": "x" * 257, "zone": None, "gateways": [{"url": "https://a"}]}]},
        {"sites": [{"name": "a", "zone": None, "gateways": [{"url": "file:///etc/passwd"}]}]},
        {"sites": [{"name": "a", "zone": None, "gateways": ["https://a"]}]},
        document(*[f"https://g{number}" for number in range(MOST + 1)]),
    ],
)
def test_what_is_no_list_of_sites_is_refused(wrong: object) -> None:
    with pytest.raises(Unavailable):
        read_list(wrong, SOURCE, allow_http=False)


def test_a_kept_list_is_read_by_whoever_shares_a_seed_and_by_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "sites.json"
    gateways = (Gateway("https://b.example.com:443", "b", "eu"),)
    save(file, [Gateway(SOURCE)], gateways)
    seeds = [Gateway("https://new.example.com:443"), Gateway(SOURCE)]
    assert load(file, seeds, allow_http=False) == gateways
    assert load(file, seeds[:1], allow_http=False) == ()
    assert load(tmp_path / "none.json", seeds, allow_http=False) == ()


@pytest.mark.parametrize("text", ["", "[", "[]", "{}", '{"seeds": [], "gateways": [1]}', "\xff"])
def test_a_damaged_kept_list_counts_as_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "sites.json"
    file.write_bytes(text.encode("latin-1"))
    assert load(file, [Gateway(SOURCE)], allow_http=False) == ()


def test_a_kept_list_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    file = tmp_path / "sites.json"
    save(file, [Gateway(SOURCE)], [Gateway("https://b.example.com:443")])
    file.chmod(0o666)
    assert load(file, [Gateway(SOURCE)], allow_http=False) == ()


def test_a_kept_list_is_held_to_the_same_rules_as_a_fresh_one(tmp_path: Path) -> None:
    file = tmp_path / "sites.json"
    save(file, [Gateway(SOURCE)], [Gateway("http://b.example.com:80"), Gateway("http://[::1]:80")])
    assert load(file, [Gateway(SOURCE)], allow_http=False) == ()
    assert load(file, [Gateway(SOURCE)], allow_http=True) == (Gateway("http://b.example.com:80"),)


def test_when_no_seed_is_left_the_kept_list_leads_on(gateways: Region, tmp_path: Path) -> None:
    near, _, far = gateways
    file = tmp_path / "sites.json"
    with quick(far, sites_file=file) as client:
        client.refresh()
    assert len(json.loads(file.read_text())["gateways"]) == 3
    far.kill()
    with quick(far, sites_file=file) as client:
        client.refresh()
        assert client.infer("m", BODY).gateway == near.url


def test_a_cluster_that_names_no_gateways_is_entered_by_the_seeds(gateways: Region) -> None:
    near, middle, _ = gateways
    for gateway in (near, middle):
        gateway.behave(sites=document())
    with quick(near, middle) as client:
        client.refresh()
        assert client.infer("m", BODY).gateway == near.url
        assert {seen.url for seen in client.gateways} == {near.url, middle.url}


def test_a_gateway_that_has_no_list_does_not_stand_in_the_way(gateways: Region) -> None:
    near, middle, _ = gateways
    near.control.pop("sites")
    near.behave()
    middle.behave(sites="no list")
    with quick(near, middle) as client:
        client.refresh()
        assert client.infer("m", BODY).gateway == near.url
