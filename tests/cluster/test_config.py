"""Where settings come from, which source wins, and what is said when one is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.config import PROFILES, Settings, known_keys, load_settings, load_with_origins
from cluster.settings import Objective, RuleName
from edge_runtime.errors import InvalidInput, NotFound
from policies.routing import RULES
from policies.routing.classical import PROBED
from policies.routing.types import OBJECTIVES


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    return {"PRIME_SPARK_HOME": str(home), "PATH": "unrelated"}


def _write(home: Path, text: str) -> Path:
    home.mkdir(exist_ok=True)
    file = home / "config.yaml"
    file.write_text(text)
    return file


def test_without_any_source_the_defaults_hold(env: dict[str, str], home: Path) -> None:
    settings = load_settings(env)
    assert settings == Settings(home=str(home))
    assert (settings.address, settings.ports.rest, settings.profile) == ("127.0.0.1", 8000, "local")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_and_names_itself(env: dict[str, str], profile: str) -> None:
    assert load_settings(env, {"profile": profile}).profile == profile
    assert load_settings({**env, "PRIME_SPARK_PROFILE": profile}).profile == profile


def test_a_later_source_wins_and_each_value_knows_its_origin(
    env: dict[str, str], home: Path
) -> None:
    file = _write(
        home,
        "profile: cloud\ngateway: {replicas: 3}\nports: {rest: 8001, grpc: 9001, dashboard: 8266}",
    )
    env |= {"PRIME_SPARK_PORTS__GRPC": "9002", "PRIME_SPARK_PORTS__DASHBOARD": "8267"}
    settings, origins = load_with_origins(env, {"ports.dashboard": 8268})
    assert settings.gateway.max_replicas == 8
    assert origins["gateway.max_replicas"] == "profile cloud"
    assert (settings.gateway.replicas, origins["gateway.replicas"]) == (3, str(file))
    assert (settings.ports.rest, origins["ports.rest"]) == (8001, str(file))
    assert settings.ports.grpc == 9002
    assert origins["ports.grpc"] == "variable PRIME_SPARK_PORTS__GRPC"
    assert (settings.ports.dashboard, origins["ports.dashboard"]) == (8268, "flag")
    assert "ports.gcs" not in origins


@pytest.mark.parametrize(
    ("name", "value", "key", "expected"),
    [
        ("SITE", "1", "site", "1"),
        ("SITE", "no", "site", "no"),
        ("ADDRESS", "::", "address", "::"),
        ("ADDRESS", "::1", "address", "::1"),
        ("EDGE__ENABLED", "false", "edge.enabled", False),
        ("EDGE__ENABLED", "1", "edge.enabled", True),
        ("FRONT_DOOR__IDLE_TIMEOUT_S", "2.5", "front_door.idle_timeout_s", 2.5),
        ("PORTS__REST", "08080", "ports.rest", 8080),
        ("PORTS__REST", "", "ports.rest", 8000),
    ],
)
def test_a_variable_is_read_as_its_setting_needs_it(
    env: dict[str, str], name: str, value: str, key: str, expected: object
) -> None:
    found: object = load_settings({**env, f"PRIME_SPARK_{name}": value})
    for part in key.split("."):
        found = getattr(found, part)
    assert found == expected


@pytest.mark.parametrize("value", ["[", "{", "*x", "!x", "a: b", "x", "0", "65536", "1.5"])
def test_a_variable_that_does_not_fit_is_named(env: dict[str, str], value: str) -> None:
    with pytest.raises(InvalidInput, match="PRIME_SPARK_PORTS__REST") as refused:
        load_settings({**env, "PRIME_SPARK_PORTS__REST": value})
    assert refused.value.field == "ports.rest"


def test_variables_that_are_no_settings_are_left_alone(env: dict[str, str]) -> None:
    for name in ("TOKEN", "CLUSTER", "NODE"):
        env[f"PRIME_SPARK_{name}"] = "x"
    load_settings(env)


def test_an_unknown_key_is_an_error_that_names_the_nearest_one(
    env: dict[str, str], home: Path
) -> None:
    with pytest.raises(InvalidInput, match=r"'ports\.rset' \(flag\)") as in_flag:
        load_settings(env, {"ports.rset": 1})
    assert in_flag.value.hint == "did you mean 'ports.rest'?"
    with pytest.raises(InvalidInput, match="PRIME_SPARK_PORT__REST") as in_variable:
        load_settings({**env, "PRIME_SPARK_PORT__REST": "1"})
    assert in_variable.value.hint == "did you mean 'ports.rest'?"
    file = _write(home, "gatway: {replicas: 2}")
    with pytest.raises(InvalidInput) as in_file:
        load_settings(env)
    assert str(file) in in_file.value.message
    assert in_file.value.hint == "did you mean 'gateway.replicas'?"
    _write(home, "zzzzzzzz: 1")
    with pytest.raises(InvalidInput) as far_off:
        load_settings(env)
    assert "config show" in str(far_off.value.hint)


def test_a_wrong_value_says_where_it_was_set(env: dict[str, str], home: Path) -> None:
    file = _write(home, "limits: {max_inputs: none}")
    with pytest.raises(InvalidInput) as refused:
        load_settings(env)
    assert refused.value.message.startswith(f"setting 'limits.max_inputs' ({file})")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"ports.rest": 9000}, "ports"),
        ({"tls.key": "key.pem"}, "tls"),
        ({"gateway.replicas": 5}, "gateway"),
        ({"inference.min_replicas": 3}, "inference"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    env: dict[str, str], overrides: dict[str, object], key: str
) -> None:
    with pytest.raises(InvalidInput, match=rf"setting '{key}' \(flag\)") as refused:
        load_settings(env, overrides)
    assert refused.value.field == key


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("address", "localhost"),
        ("address", "999.1.1.1"),
        ("address", "1.1.1.1\n bind *:80"),
        ("address", "fe80::1%eth0"),
        ("site", "A"),
        ("site", "-a"),
        ("edge.accelerator", "x y"),
        ("front_door.idle_timeout_s", "inf"),
        ("front_door.idle_timeout_s", "nan"),
        ("front_door.idle_timeout_s", 0),
        ("home", "~nobody-has-this-name/x"),
    ],
)
def test_a_value_that_could_not_work_is_refused(
    env: dict[str, str], key: str, value: object
) -> None:
    with pytest.raises(InvalidInput) as refused:
        load_settings(env, {key: value})
    assert refused.value.field in (key, "config")


def test_a_group_that_is_commented_out_sets_nothing(env: dict[str, str], home: Path) -> None:
    _write(home, "ports:\n#  rest: 1\nedge: {}\n")
    assert load_settings(env) == Settings(home=str(home))


@pytest.mark.parametrize("text", ["ports: 8000", "ports: [1]", "ports: text"])
def test_a_group_is_not_a_value(env: dict[str, str], home: Path, text: str) -> None:
    _write(home, text)
    with pytest.raises(InvalidInput, match="group of settings") as refused:
        load_settings(env)
    assert "ports.rest" in str(refused.value.hint)


@pytest.mark.parametrize("text", ["[1]", "just text", "a: [", "a: {b", "\t- x", "a: !!python/x y"])
def test_a_file_that_holds_no_settings_is_named(env: dict[str, str], home: Path, text: str) -> None:
    file = _write(home, text)
    with pytest.raises(InvalidInput) as refused:
        load_settings(env)
    assert str(file) in refused.value.message


def test_an_empty_file_is_fine(env: dict[str, str], home: Path) -> None:
    _write(home, "# nothing\n")
    load_settings(env)


def test_a_named_file_is_read_instead_of_the_homes(
    env: dict[str, str], home: Path, tmp_path: Path
) -> None:
    _write(home, "site: from-home")
    named = tmp_path / "named.yaml"
    named.write_text("site: from-name")
    assert load_settings({**env, "PRIME_SPARK_CONFIG": str(named)}).site == "from-name"
    assert load_settings({**env, "PRIME_SPARK_CONFIG": ""}).site == "from-home"


def test_a_named_file_must_be_there_and_be_text(env: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"missing\.yaml"):
        load_settings({**env, "PRIME_SPARK_CONFIG": str(tmp_path / "missing.yaml")})
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, binary):
        with pytest.raises(InvalidInput, match="cannot be read"):
            load_settings({**env, "PRIME_SPARK_CONFIG": str(path)})


def test_an_unknown_profile_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="no profile 'moon'") as refused:
        load_settings({**env, "PRIME_SPARK_PROFILE": "moon"})
    assert "local" in str(refused.value.hint)
    with pytest.raises(InvalidInput, match="no profile"):
        load_settings(env, {"profile": "../profiles/local"})


def test_a_relative_home_means_the_folder_where_it_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({"PRIME_SPARK_HOME": "here"}).home == str(tmp_path / "here")


def test_settings_cannot_be_changed(env: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        load_settings(env).ports.rest = 1


def test_every_key_can_be_set_to_its_own_value(env: dict[str, str]) -> None:
    settings = load_settings(env)
    document = settings.model_dump(mode="json")
    overrides: dict[str, object] = {}
    for key in known_keys():
        value = document
        for part in key.split("."):
            value = value[part]
        overrides[key] = value
    assert load_settings(env, overrides) == settings
    assert "ports.rest" in overrides
    assert "tls.certificate" in overrides


@given(
    key=st.sampled_from(known_keys()),
    value=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8),
)
def test_whatever_a_variable_holds_it_is_taken_or_refused_by_its_name(key: str, value: str) -> None:
    name = "PRIME_SPARK_" + key.upper().replace(".", "__")
    try:
        load_settings({"PRIME_SPARK_HOME": "nowhere", name: value})
    except InvalidInput as refused:
        if refused.field not in (key, key.split(".")[0], "config"):
            raise


def test_objectives_by_model_are_read_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    env = {"PRIME_SPARK_HOME": str(tmp_path)}
    found = load_settings(env, {"routing.objectives": ["batch-*=cost", "*=latency"]})
    assert found.routing.by_model() == (("batch-*", "cost"), ("*", "latency"))
    with pytest.raises(InvalidInput, match="'digits=cheap' is no MODEL=OBJECTIVE"):
        load_settings(env, {"routing.objectives": ["digits=cheap"]})


def test_the_rules_and_objectives_of_settings_are_those_of_routing() -> None:
    assert set(get_args(RuleName)) == set(RULES) - PROBED  # the gateway sends no probes
    assert get_args(Objective) == OBJECTIVES
