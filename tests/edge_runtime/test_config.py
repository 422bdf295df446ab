"""The settings of an edge box, as somebody writes them into a file, a variable or a flag."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config import load_settings
from edge_runtime.config import EngineSettings, LimitSettings
from edge_runtime.engine import ModelOptions
from edge_runtime.errors import InvalidInput
from edge_runtime.protocol.service import Limits


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"PRIME_SPARK_HOME": str(tmp_path / "home")}


def test_a_file_sets_what_a_box_needs(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.yaml").write_text(
        """
edge:
  site: barn
  address: 0.0.0.0
  ports: {rest: 80, grpc: 81}
  models: {startup: all, max_bytes: 500000000}
  accelerator: {kind: hailo}
  drain_s: 5
engine: {max_queue: 16}
"""
    )
    settings = load_settings(env)
    edge = settings.edge
    assert (edge.site, edge.address, edge.ports.rest, edge.drain_s) == ("barn", "0.0.0.0", 80, 5.0)
    assert (edge.models.startup, edge.models.max_bytes) == ("all", 500_000_000)
    assert edge.accelerator.kind == "hailo"
    assert settings.engine.options() == ModelOptions(max_queue=16)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("edge.model.startup", "edge.models.startup"),
        ("edge.models.start_up", "edge.models.startup"),
        ("edge.models.maxbytes", "edge.models.max_bytes"),
        ("edge.drain", "edge.drain_s"),
        ("edge.accelerator.knd", "edge.accelerator.kind"),
        ("engine.max_batch", "engine.max_batch_size"),
        ("limits.max_body_size", "limits.max_body_bytes"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_is_named(
    env: dict[str, str], key: str, nearest: str
) -> None:
    with pytest.raises(InvalidInput, match=f"unknown setting '{key}'") as refused:
        load_settings(env, {key: 1})
    assert refused.value.hint == f"did you mean '{nearest}'?"


@pytest.mark.parametrize(
    ("key", "least", "below"),
    [
        ("edge.ports.rest", 1, 0),
        ("edge.cpus", 1, 0),
        ("edge.models.max_bytes", 0, -1),
        ("edge.models.cache_bytes", 0, -1),
        ("edge.drain_s", 0.001, 0),
        ("engine.threads", 0, -1),
        ("engine.max_batch_size", 1, 0),
        ("engine.max_delay_ms", 0, -0.1),
        ("engine.max_queue", 1, 0),
        ("engine.max_queue_wait_ms", 0.001, 0),
        ("engine.intra_op_threads", 1, 0),
        ("limits.max_body_bytes", 1, 0),
        ("limits.max_json_bytes", 1, 0),
        ("limits.max_inflight_bytes", 1, 0),
        ("limits.max_inputs", 1, 0),
        ("limits.default_timeout_s", 0.001, 0),
        ("limits.max_timeout_s", 0.001, 0),
    ],
)
def test_a_number_has_a_least_value_and_one_below_it_is_refused_by_name(
    env: dict[str, str], key: str, least: float, below: float
) -> None:
    assert _at(load_settings(env, {key: least}), key) == least
    with pytest.raises(InvalidInput, match=f"setting '{key}'"):
        load_settings(env, {key: below})


@pytest.mark.parametrize("value", ["inf", "nan", "soon", None, []])
def test_what_is_no_number_of_seconds_is_refused(env: dict[str, str], value: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        load_settings(env, {"edge.drain_s": value})
    assert refused.value.field == "edge.drain_s"


def test_a_choice_that_does_not_exist_is_refused_with_those_that_do(env: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="'newest', 'all' or 'none'"):
        load_settings(env, {"edge.models.startup": "some"})
    with pytest.raises(InvalidInput, match="'auto', 'none' or 'hailo'"):
        load_settings(env, {"edge.accelerator.kind": "coral"})


def test_two_servers_on_one_port_are_refused(env: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=r"edge\.ports.*the same"):
        load_settings(env, {"edge.ports.rest": 9100})


@pytest.mark.parametrize("site", ["Barn", "-a", "a" * 64, "", "a b", "a.b"])
def test_a_site_s_name_is_a_label_that_a_host_name_could_have(
    env: dict[str, str], site: str
) -> None:
    with pytest.raises(InvalidInput, match=r"edge\.site"):
        load_settings(env, {"edge.site": site})


@pytest.mark.parametrize("key", ["edge.models.folder", "edge.accelerator.driver_path"])
def test_a_folder_is_the_same_wherever_a_command_is_started(
    env: dict[str, str], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert _at(load_settings(env, {key: "here"}), key) == tmp_path / "here"
    assert _at(load_settings(env, {key: "~/here"}), key) == Path("/home/ada/here")
    assert _at(load_settings(env), key) is None
    with pytest.raises(InvalidInput, match=key):
        load_settings(env, {key: "~nobody-has-this-name/here"})


def test_the_engine_and_the_protocol_take_each_setting_of_theirs() -> None:
    engine = EngineSettings(
        threads=9,
        max_batch_size=2,
        max_delay_ms=3.0,
        max_queue=4,
        max_queue_wait_ms=5.0,
        intra_op_threads=6,
    )
    assert engine.options() == ModelOptions(2, 3.0, 0, 4, 5.0, 6)
    limits = LimitSettings(
        max_body_bytes=1,
        max_json_bytes=2,
        max_inflight_bytes=3,
        max_inputs=4,
        default_timeout_s=5.0,
        max_timeout_s=6.0,
        allow_non_finite=True,
    )
    assert limits.limits() == Limits(1, 2, 3, 4, 5.0, 6.0, allow_non_finite=True)


def test_the_default_bounds_of_settings_are_those_of_the_parts() -> None:
    assert EngineSettings().options() == ModelOptions()
    assert LimitSettings().limits() == Limits()


def _at(settings: object, key: str) -> object:
    for part in key.split("."):
        settings = getattr(settings, part)
    return settings
