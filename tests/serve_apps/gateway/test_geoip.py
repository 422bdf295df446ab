"""A GeoIP database says where an address is, and says nothing rather than something wrong."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from edge_runtime.errors import Corrupt, InvalidInput, NotFound
from serve_apps.gateway.geoip import REMEMBERED, GeoIp
from tests.serve_apps.gateway.mmdb import write

pytest.importorskip("maxminddb", reason="the reader of GeoIP databases (extra `geo`)")

PARIS = {"location": {"latitude": 48.8566, "longitude": 2.3522}}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "city.mmdb"
    write(
        file,
        {
            "192.0.2.0/24": PARIS,
            "2001:db8::/32": {"location": {"latitude": -33.87, "longitude": 151.21}},
            "198.51.100.0/24": {"country": {"iso_code": "FR"}},
            "203.0.113.0/24": {"location": {"latitude": 123.0, "longitude": 0.0}},
            "203.0.114.0/24": {"location": {"latitude": "north", "longitude": 0.0}},
        },
    )
    return file


def test_an_address_has_the_position_of_its_network(database: Path) -> None:
    geoip = GeoIp(database)
    assert geoip.position("192.0.2.77") == (48.8566, 2.3522)
    assert geoip.position("2001:db8::1") == (-33.87, 151.21)


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "198.51.100.1", "203.0.113.1", "203.0.114.1", "", "nobody", "192.0.2.1, 10.0.0.1"],
)
def test_without_a_sound_position_nothing_is_known(database: Path, address: str) -> None:
    assert GeoIp(database).position(address) is None


def test_what_is_remembered_is_bounded_and_stays_right(database: Path) -> None:
    geoip = GeoIp(database)
    for number in range(REMEMBERED + 100):
        assert geoip.position(f"10.1.{number // 256}.{number % 256}") is None
    assert len(geoip._found) == REMEMBERED
    assert geoip.position("192.0.2.1") == geoip.position("192.0.2.1") == (48.8566, 2.3522)


def test_a_replaced_file_is_taken_in_and_a_broken_one_is_not(database: Path) -> None:
    geoip = GeoIp(database)
    assert geoip.position("192.0.2.1") == (48.8566, 2.3522)
    write(database, {"192.0.2.0/24": {"location": {"latitude": 1.0, "longitude": 2.0}}})
    asyncio.run(geoip.refresh())
    assert geoip.position("192.0.2.1") == (1.0, 2.0)
    database.write_bytes(b"nonsense")
    asyncio.run(geoip.refresh())
    assert geoip.position("192.0.2.2") == (1.0, 2.0)
    database.unlink()
    asyncio.run(geoip.refresh())
    assert geoip.position("192.0.2.3") == (1.0, 2.0)


def test_a_file_that_is_no_database_is_refused_by_the_settings_name(tmp_path: Path) -> None:
    file = tmp_path / "city.mmdb"
    with pytest.raises(NotFound) as missing:
        GeoIp(file)
    file.write_bytes(b"nonsense")
    with pytest.raises(Corrupt) as broken:
        GeoIp(file)
    assert missing.value.field == broken.value.field == "geoip.database"


def test_without_the_reader_the_error_says_what_to_install(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "maxminddb", None)  # how an import is made to fail
    with pytest.raises(InvalidInput) as error:
        GeoIp(database)
    assert error.value.hint == "pip install 'prime-spark[geo]'"
