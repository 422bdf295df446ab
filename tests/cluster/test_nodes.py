"""What the nodes of a cluster and its other children are told."""

from __future__ import annotations

import pytest

from cluster.config import load_settings
from cluster.home import Home
from cluster.nodes import handing_on


def test_a_child_has_the_settings_of_its_parent_whatever_they_came_from(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIME_SPARK_GATEWAY__REPLICAS", "5")
    flags = {"gateway.replicas": 2, "edge.here": False, "edge.site": "north"}
    env = {"PRIME_SPARK_HOME": str(home.root), "PRIME_SPARK_ENGINE__MAX_QUEUE": "7"}
    settings = load_settings(env, flags)
    home.make_run()
    found = load_settings(handing_on(home, settings, "deploy"))
    assert found == settings
    assert (found.gateway.replicas, found.engine.max_queue, found.edge.here) == (2, 7, False)
