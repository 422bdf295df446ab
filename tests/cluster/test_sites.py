"""Sites and residency in the settings: lists from a file, a variable or a flag."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config import load_settings, load_with_origins
from edge_runtime.errors import InvalidInput
from tests.docs.pages import DOCS, blocks

SITES = (
    "[{name: fra, latitude: 50.1, longitude: 8.7, zone: eu, gateways: ['https://Fra.example.com/']},"
    " {name: lab, tenants: [acme]}]"
)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"PRIME_SPARK_HOME": str(tmp_path)}


def test_a_file_a_variable_and_a_flag_say_the_same_sites(
    env: dict[str, str], tmp_path: Path
) -> None:
    by_variable, origins = load_with_origins({**env, "PRIME_SPARK_SITES": SITES})
    assert origins["sites"] == "variable PRIME_SPARK_SITES"
    (tmp_path / "config.yaml").write_text(f"sites: {SITES}\n")
    assert load_settings(env).sites == by_variable.sites
    as_values = [site.model_dump(exclude_none=True) for site in by_variable.sites]
    assert load_settings(env, {"sites": as_values}).sites == by_variable.sites
    fra, lab = by_variable.sites
    assert fra.position == (50.1, 8.7)
    assert fra.gateways == ("https://fra.example.com:443",)
    assert (lab.position, lab.zone, lab.tenants) == (None, None, ("acme",))


@pytest.mark.parametrize(
    ("sites", "residency", "said", "field"),
    [
        ("[{name: a, lattitude: 1}]", "", "did you mean 'latitude'", "sites.0"),
        ("[{name: a, xyz: 1}]", "", "there are name, latitude", "sites.0"),
        ("[{name: a, latitude: 91, longitude: 0}]", "", "less than or equal to 90", "latitude"),
        ("[{name: a, latitude: 1}]", "", "latitude and longitude, or neither", "sites.0"),
        ("[{name: a}, {name: a}]", "", "site 'a' is there twice", "sites"),
        ("[{name: a, gateways: ['ftp://a']}]", "", "no address of a gateway", "gateways.0"),
        ("[{name: a, gateways: ['https://u:p@a']}]", "", "credential", "gateways.0"),
        ("[{name: a, gateways: ['https://a', 'https://A:443']}]", "", "there twice", "sites"),
        ("[{", "", "no list in YAML", "sites"),
        (SITES, "[{tenant: acme, zones: [eux]}]", "did you mean 'eu'", "residency"),
        (SITES, "[{tenant: acme, zones: [us]}]", "no site is in zone 'us'", "residency"),
        (SITES, "[{tenant: a, zones: []}, {tenant: a, zones: []}]", "there twice", "residency"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_origin(
    env: dict[str, str], sites: str, residency: str, said: str, field: str
) -> None:
    env |= {"PRIME_SPARK_SITES": sites, "PRIME_SPARK_RESIDENCY": residency}
    with pytest.raises(InvalidInput) as error:
        load_settings(env)
    assert said in error.value.message
    assert field in (error.value.field or "")
    variable = "RESIDENCY" if field == "residency" else "SITES"
    assert f"(variable PRIME_SPARK_{variable})" in error.value.message


def test_sites_written_as_keys_are_told_to_be_a_list(env: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="'sites'") as error:
        load_settings(env, {"sites.fra.latitude": 1})
    assert error.value.hint is not None
    assert "dash" in error.value.hint


def test_the_example_of_the_documentation_is_taken(env: dict[str, str], tmp_path: Path) -> None:
    (example,) = blocks(DOCS / "how-to" / "several-regions.md", "yaml")
    (tmp_path / "config.yaml").write_text(example)
    found = load_settings(env)
    assert [site.name for site in found.sites] == ["fra", "nyc", "clinic"]
    assert found.residency
