"""`ray-cluster.yaml` against Ray's validation, and its start commands run with recording programs.

`ray` and `hostname` are replaced by small scripts on the PATH, so the shell evaluates the real
commands and says what each machine would have started, with which environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts import scripts as ray_command_line

from cluster.config import Settings
from cluster.home import Home
from cluster.nodes import EDGE, HEAD, environment, nodes

ROOT = Path(__file__).parents[2]
LAUNCHER_ONLY = {"--autoscaling-config"}
RECORD = """#!{python}
import json, os, sys
with open({out!r}, "a") as file:
    file.write(json.dumps({{"arguments": sys.argv[1:], "env": dict(os.environ)}}) + "\\n")
"""


@dataclass(frozen=True)
class Started:
    """One `ray start`: its options by name, and its environment."""

    options: dict[str, str]
    env: dict[str, str]

    @property
    def labels(self) -> str:
        return self.options["--labels"]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "ray-cluster.yaml").read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def machines(config: dict[str, Any]) -> dict[str, str]:
    """Every address, with the node type that its comment names."""
    text = (ROOT / "ray-cluster.yaml").read_text("utf-8")
    provider = config["provider"]
    found = {}
    for address in [provider["head_ip"], *provider["worker_ips"]]:
        line = next(line for line in text.splitlines() if f" {address} " in line and "#" in line)
        found[address] = line.partition("node type `")[2].partition("`")[0]
    return found


def run_start_commands(
    commands: list[str], address: str, head_ip: str, tmp_path: Path
) -> subprocess.CompletedProcess[str]:
    home = tmp_path / "home"
    programs = home / "prime-spark" / ".venv" / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    (home / ".prime-spark" / "run").mkdir(parents=True, exist_ok=True)
    (home / ".prime-spark" / "logs").mkdir(exist_ok=True)
    record = RECORD.format(python=sys.executable, out=str(tmp_path / "started"))
    for name, text in (
        ("ray", record),
        ("hostname", f"#!/bin/sh\necho 192.0.2.7 {address}\n"),
        ("prime-spark", "#!/bin/sh\n"),
        ("python", "#!/bin/sh\n"),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return subprocess.run(
        ["bash", "-c", "\n".join(["set -e", *commands, "wait"])],
        env={"HOME": str(home), "PATH": os.environ["PATH"], "RAY_HEAD_IP": head_ip},
        capture_output=True,
        text=True,
        timeout=60,
    )


def started(config: dict[str, Any], address: str, tmp_path: Path) -> Started:
    head_ip = config["provider"]["head_ip"]
    kind = "head" if address == head_ip else "worker"
    done = run_start_commands(config[f"{kind}_start_ray_commands"], address, head_ip, tmp_path)
    assert done.returncode == 0, done.stderr
    calls = [json.loads(line) for line in (tmp_path / "started").read_text().splitlines()]
    assert [call["arguments"][0] for call in calls] == ["stop", "start"]
    pairs = (argument.partition("=") for argument in calls[1]["arguments"][1:])
    return Started({name: value for name, _, value in pairs}, calls[1]["env"])


def expected_labels(node: str, settings: Settings) -> str:
    return next(found.labels for found in nodes(settings) if found.name == node)


def addresses(machines: dict[str, str], node_type: str) -> list[str]:
    found = [address for address, name in machines.items() if name == node_type]
    assert found, f"no machine of type {node_type}"
    return found


def test_ray_accepts_the_file(config: dict[str, Any]) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == len(config["provider"]["worker_ips"])


def test_every_machine_has_a_named_node_type(machines: dict[str, str]) -> None:
    assert set(machines.values()) == {"head", "cloud-worker", "edge-worker"}


def test_the_head_is_started_as_up_starts_it(
    config: dict[str, Any], machines: dict[str, str], tmp_path: Path
) -> None:
    settings = Settings()
    (address,) = addresses(machines, "head")
    found = started(config, address, tmp_path)
    assert found.labels == expected_labels(HEAD, settings)
    assert found.options["--node-ip-address"] == address
    assert found.options["--port"] == str(settings.ports.gcs)
    assert found.options["--dashboard-host"] == "127.0.0.1"
    assert found.options["--dashboard-port"] == str(settings.ports.dashboard)
    assert found.options["--object-store-memory"] == str(settings.ray.object_store_bytes)


@pytest.mark.parametrize(("node_type", "node"), [("cloud-worker", HEAD), ("edge-worker", EDGE)])
def test_workers_carry_the_labels_that_deployments_select(
    config: dict[str, Any],
    machines: dict[str, str],
    tmp_path: Path,
    node_type: str,
    node: str,
) -> None:
    for address in addresses(machines, node_type):
        found = started(config, address, tmp_path / address)
        assert found.labels == expected_labels(node, Settings())
        assert found.options["--address"] == f"{config['provider']['head_ip']}:6379"
        assert found.options["--node-name"] == f"{node_type}-{address}"


def test_every_node_starts_in_token_mode_with_the_environment_of_up(
    config: dict[str, Any], machines: dict[str, str], tmp_path: Path
) -> None:
    own = environment(
        Home.at(tmp_path / "own"), Settings.model_validate({"ray": {"address": "::"}})
    )
    wanted = {name: value for name, value in own.items() if name.startswith("RAY_")}
    token_path = wanted.pop("RAY_AUTH_TOKEN_PATH")
    assert wanted["RAY_AUTH_MODE"] == "token"
    for address in machines:
        folder = tmp_path / address
        env = started(config, address, folder).env
        assert {name: env.get(name) for name in wanted} == wanted
        assert env["RAY_AUTH_TOKEN_PATH"].endswith("/.prime-spark/identity/ray-token")
        assert Path(env["RAY_AUTH_TOKEN_PATH"]).name == Path(token_path).name


def test_ray_knows_every_option_of_the_start_commands(
    config: dict[str, Any], machines: dict[str, str], tmp_path: Path
) -> None:
    known = {name for option in ray_command_line.start.params for name in option.opts}
    for address in machines:
        options = started(config, address, tmp_path / address).options
        assert set(options) <= known


def test_a_machine_that_is_not_in_the_table_does_not_join(
    config: dict[str, Any], tmp_path: Path
) -> None:
    head_ip = config["provider"]["head_ip"]
    commands = config["worker_start_ray_commands"]
    done = run_start_commands(commands, "198.51.100.9", head_ip, tmp_path)
    assert done.returncode != 0
    assert "not in the table" in done.stderr
    calls = [json.loads(line) for line in (tmp_path / "started").read_text().splitlines()]
    assert [call["arguments"] for call in calls] == [["stop"]]


def test_the_token_is_copied_into_folders_made_private_before(config: dict[str, Any]) -> None:
    assert "~/.prime-spark/identity/ray-token" in config["file_mounts"]
    (first, *_) = config["initialization_commands"]
    assert first.startswith("umask 077; mkdir -p ~/.prime-spark/identity")
