"""`prime-spark sites` says where the gateways are and which is nearest from here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.edge_runtime.entry.conftest import Region
from tests.edge_runtime.entry.conftest import gateways as gateways  # the fixture


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def run(home: Path, *words: str, token: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cluster.cli.main", "--home", str(home), "sites", *words],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "PRIME_SPARK_TOKEN": token},
        timeout=60,
    )


def test_the_sites_of_a_named_gateway_are_shown_for_people(home: Path, gateways: Region) -> None:
    near, _, far = gateways
    done = run(home, "--gateway", far.url, token="of-somebody")
    assert done.returncode == 0, done.stderr
    heading, *rows = done.stdout.splitlines()
    assert heading.split()[:3] == ["site", "zone", "position"]
    assert [row.split()[0] for row in rows] == ["near", "middle", "far"]
    assert "near (here)" in done.stdout
    assert "0 of 1" in rows[2]
    assert "12.5 ms" in rows[1]
    assert near.url in rows[0]
    assert far.noted("/v1/sites")[0].headers["authorization"] == "Bearer of-somebody"


def test_a_probe_says_which_gateway_is_nearest_and_what_is_wrong_with_others(
    home: Path, gateways: Region
) -> None:
    near, middle, far = gateways
    middle.kill()
    done = run(home, "--gateway", far.url, "--probe", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["site"] == "near"
    found = {probe["site"]: probe for probe in document["probes"]}
    assert found["near"]["is_nearest"]
    assert found["far"]["rtt_ms"] > found["near"]["rtt_ms"] > 0
    assert "refused" in found["middle"]["problem"]
    told = run(home, "--gateway", far.url, "--probe").stdout
    assert f"{near.url}" in told.partition("from here")[2]
    assert "enters here" in told


def test_without_an_answer_the_exit_code_is_5_and_the_reason_is_said(home: Path) -> None:
    nobody = run(home, "--gateway", "http://127.0.0.1:9")
    assert (nobody.returncode, nobody.stdout) == (5, "")
    assert "refused" in nobody.stderr
    nowhere = run(home)
    assert nowhere.returncode == 5
    assert "--gateway" in nowhere.stderr


def test_a_token_is_not_sent_in_the_open_unless_it_is_asked_for(home: Path) -> None:
    done = run(home, "--gateway", "http://192.0.2.1")
    assert done.returncode == 2
    assert "--allow-http" in done.stderr
