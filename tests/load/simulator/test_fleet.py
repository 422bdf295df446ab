"""A fleet is a file: it reads as it was written, and says which key is wrong."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import InvalidInput, NotFound
from load.simulator.fleet import FleetFile, fleet_text, parse_fleet, read_fleet
from load.simulator.world import Start, reference
from policies.routing.sizes import bucket

PLACE: dict[str, Any] = {"name": "edge", "tier": "edge", "site": "plant-1", "service_ms": 20}
FLEET: dict[str, Any] = {"gateways": {"cloud-1": 2}, "places": [PLACE]}

ms = st.floats(0.01, 1e4)
measured = ms | st.dictionaries(
    st.integers(0, 2**30), ms | st.lists(ms, min_size=1, max_size=5).map(sorted), min_size=1
)
places: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    tier=st.sampled_from(["edge", "cloud"]),
    site=st.sampled_from(["a", "b"]),
    service_ms=ms | st.dictionaries(st.sampled_from(["m", "n"]), measured, min_size=1),
    replicas=st.integers(1, 3),
    max_batch=st.integers(1, 8),
    way_ms=st.none() | ms,
    usd_per_hour=ms,
)
fleets = st.lists(places, min_size=1, max_size=3).map(
    lambda found: FleetFile.model_validate(
        {
            "gateways": {"a": 1},
            "places": [{**place, "name": f"p{i}"} for i, place in enumerate(found)],
        }
    )
)


@settings(max_examples=60, deadline=None)
@given(fleets)
def test_a_fleet_that_is_written_reads_as_it_was(fleet: FleetFile) -> None:
    again = parse_fleet(yaml.safe_load(fleet_text(fleet)), "some")
    assert again == fleet
    assert again.world() == fleet.world()


def test_the_example_is_the_fleet_of_the_benchmarks() -> None:
    text = resources.files("configs").joinpath("fleets", "mixed.yaml").read_text("utf-8")
    world, known = parse_fleet(yaml.safe_load(text), "mixed").world(), reference()
    assert world.sites == known.sites
    for name in ("own_rtt_s", "other_rtt_s", "cloud_rtt_s", "classes", "spread", "report_s"):
        assert getattr(world, name) == getattr(known, name)
    assert len(world.nodes) == len(known.nodes)
    for ours, theirs in zip(world.nodes, known.nodes, strict=True):
        assert (ours.tier, ours.site, ours.base_s) == (theirs.tier, theirs.site, theirs.base_s)
        assert (ours.max_batch, ours.fixed) == (theirs.max_batch, theirs.fixed)
        assert ours.usd_per_s == pytest.approx(theirs.usd_per_s, rel=0.01)
        assert ours.usd_per_byte == pytest.approx(theirs.usd_per_byte)


def test_times_by_model_and_size_are_those_of_the_nodes() -> None:
    service = {"m": {100: 10, 100_000: [20, 30, 40]}, "n": 5}
    (node,) = (
        parse_fleet({**FLEET, "places": [{**PLACE, "service_ms": service}]}, "some").world().nodes
    )
    assert node.services["m"].times(bucket(100)).median == 0.010
    assert node.services["m"].times(bucket(100_000)).at(1.0) == 0.040
    assert node.services["n"].times(3).median == 0.005
    assert not node.serves("other")


def test_a_start_is_one_replica_more_that_comes_later() -> None:
    fleet = parse_fleet(
        {**FLEET, "starts": [{"place": "edge", "from_s": 60, "cold_s": 20}]}, "some"
    )
    world = fleet.world()
    assert [node.target for node in world.nodes] == ["edge", "edge"]
    assert world.starts == (Start(world.nodes[1].name, 60.0, 20.0),)


@pytest.mark.parametrize(
    ("changes", "key", "hint"),
    [
        ({"gatways": {}}, "gatways", "did you mean 'gateways'?"),
        ({"places": [{**PLACE, "service": 3}]}, "places.0.service", "service_ms"),
        ({"places": [{**PLACE, "service_ms": -1}]}, "places.0.service_ms", ""),
        ({"places": [PLACE, PLACE]}, "fleet", ""),
        ({"throttles": [{"place": "x", "factor": 2, "from_s": 0, "for_s": 1}]}, "fleet", ""),
        ({"cuts": [{"site": "nowhere", "from_s": 0, "for_s": 1}]}, "fleet", ""),
        ({"places": []}, "places", ""),
    ],
)
def test_what_is_wrong_with_a_fleet_is_named(changes: dict[str, Any], key: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_fleet({**FLEET, **changes}, "some.yaml")
    assert "some.yaml" in refused.value.message
    assert refused.value.field == key
    assert hint in (refused.value.hint or "")


def test_a_fleet_that_is_no_file_or_no_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_fleet(tmp_path / "none.yaml")
    path = tmp_path / "some.yaml"
    path.write_text("places: [")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_fleet(path)
    path.write_text("- a\n")
    with pytest.raises(InvalidInput, match="keys and values"):
        read_fleet(path)
