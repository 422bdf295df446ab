"""What the nodes of a cluster and its other children are told."""

from __future__ import annotations

import os

import pytest

from cluster.config import load_settings
from cluster.home import Home
from cluster.nodes import forget_sessions, handing_on


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


def test_of_ray_s_sessions_the_latest_stays(home: Home) -> None:
    home.make_run()
    forget_sessions(home)
    for age, name in enumerate(("session_2026-11-03_c", "session_2026-11-01_a", "other")):
        folder = home.ray / name
        (folder / "logs").mkdir(parents=True)
        os.utime(folder, (1e9 - age, 1e9 - age))
    forget_sessions(home)
    assert {path.name for path in home.ray.iterdir()} == {"session_2026-11-03_c", "other"}
