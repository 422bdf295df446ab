"""`what-if`, from a home's request logs to the report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import InvalidInput
from load.simulator import scenario
from load.simulator.__main__ import main
from load.simulator.charts import Axis, Series, lines, scatter, standalone
from load.simulator.comparison import policies_of, run
from load.simulator.estimate import estimate
from load.simulator.readers import read
from tests.load.simulator import logs

FILES = {
    "report.html", "result.json", "fleet.yaml", "pareto.svg", "tail.svg", "delays.svg", "load.svg",
    "misses.svg",
}  # fmt: skip
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Reads a page: whether tags close, what it would fetch, and what it says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.words: list[str] = []
        self.rows = self.charts = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.rows += tag == "tr"
        self.charts += tag == "svg"
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"script", "link", "img", "iframe", "object", "embed", "image", "use"}:
            self.fetched.append(tag)
        self.fetched += [
            str(value)
            for name, value in attrs
            if name in {"src", "href", "xlink:href", "action", "background"} and value
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with two gateways' logs, some of it broken, recorded just now."""
    rows = list(logs.lines(logs.fleet(), logs.traffic(1, 40.0, 30.0)))
    moved = time.time() - rows[-1]["at"] - 5.0
    for row in rows:
        row["at"] += moved
    folder = tmp_path / "home" / "logs" / "requests"
    logs.write(folder, rows[::2], "gw-a")
    path = logs.write(folder, rows[1::2], "gw-b")
    path.write_text(path.read_text() + '{"v": 1, "at": \n')
    return tmp_path / "home"


def call(home: Path, *options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster.cli.main", "--home", str(home), "what-if", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_recorded_traffic_becomes_a_report_that_needs_nothing_else(
    home: Path, tmp_path: Path
) -> None:
    done = call(home, "--out", str(tmp_path / "out"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    page = Page(text)
    assert not page.open
    assert not page.fetched
    assert not re.search(r"https?:|url\(|@import", text)
    words = " ".join(page.words)
    assert page.charts == 5
    for said in ("balanced", "latency", "cost", "edge", "cloud", "recorded", "no JSON", "What a"):
        assert said in words
    assert "balanced (what runs now)" in done.stdout
    assert "Fidelity: p50" in done.stdout
    assert "left out: requests-gw-b" in done.stderr
    for name in FILES:
        if name.endswith(".svg"):
            svg = (tmp_path / "out" / name).read_text("utf-8")
            assert svg.count("http") == 1  # the name of SVG itself
            assert "nan" not in svg


def test_the_same_policy_in_the_simulator_is_near_what_was_recorded(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--home", str(home), "--out", str(tmp_path / "out"), "--json"]
    assert main([*options, "--policy", "balanced,latency"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fidelity"]["p50_ratio"] == pytest.approx(1.0, abs=0.15)
    assert found["fidelity"]["p99_ratio"] == pytest.approx(1.0, abs=0.30)
    assert found["requests"] == 1200
    assert [one["policy"] for one in found["policies"]] == ["balanced", "latency"]
    assert found["fleet"]["gateways"] == {"cloud-1": 2}
    assert main([*options, "--policy", "balanced,latency"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["policies"] == found["policies"]


@pytest.mark.parametrize("says_work", [True, False])
def test_what_another_policy_would_do_is_foreseen_from_what_one_did(
    tmp_path: Path, says_work: bool
) -> None:
    world, traffic = logs.fleet(), logs.traffic(1, 60.0, 100.0)
    recording = read(logs.write(tmp_path, list(logs.lines(world, traffic, says_work=says_work))))
    measured, again = estimate(recording).fleet.world(), recording.replay(1)
    policies = policies_of(["latency", "balanced"], ["balanced"])
    foreseen = [run(policy, again, measured, 1) for policy in policies]
    in_truth = [run(policy, traffic, world, 7) for policy in policies]
    for found, true in zip(foreseen, in_truth, strict=True):
        assert found.p50_s == pytest.approx(true.p50_s, rel=0.15)
        assert found.p99_s == pytest.approx(true.p99_s, rel=0.30)
        assert found.usd == pytest.approx(true.usd, rel=0.05)
    assert foreseen[0].p50_s < foreseen[1].p50_s
    assert foreseen[0].usd > foreseen[1].usd


def test_a_model_that_never_ran_at_a_place_is_said_to_be_unknown_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = logs.write(tmp_path, list(logs.lines(logs.fleet(), logs.traffic(1, 5.0, 60.0))))
    assert main(["--trace", str(path), "--policy", "latency", "--out", str(tmp_path / "o")]) == 0
    said = capsys.readouterr().out
    assert "Model 'digits' never ran at cloud" in said
    assert "Unknown: digits, resnet where it never ran." in said


def test_requests_of_a_model_that_nobody_was_answered_for_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(logs.lines(logs.fleet(), logs.traffic(1, 5.0, 60.0)))
    for row in rows[::10]:
        row |= {"model": "gone", "target": "", "attempt": 0, "outcome": "unavailable"}
    path = logs.write(tmp_path, rows)
    assert main(["--trace", str(path), "--policy", "latency", "--out", str(tmp_path / "o")]) == 0
    said = capsys.readouterr().out
    assert "30 requests of models that were never answered are left out: gone" in said
    assert re.search(r"^latency +270 ", said, re.MULTILINE)


def test_the_measured_fleet_can_be_changed_and_replayed_on(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, options = tmp_path / "out", ["--home", str(home), "--policy", "latency", "--json"]
    assert main([*options, "--out", str(out)]) == 0
    before = json.loads(capsys.readouterr().out)["policies"][0]
    fleet = yaml.safe_load((out / "fleet.yaml").read_text())
    same = tmp_path / "same.yaml"
    same.write_text(yaml.safe_dump(fleet))
    assert main([*options, "--fleet", str(same), "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["policies"][0] == before
    for place in fleet["places"]:
        place["way_ms"] = place.get("way_ms", 0.0) + 500.0
    same.write_text(yaml.safe_dump(fleet))
    assert main([*options, "--fleet", str(same), "--out", str(out)]) == 0
    far = json.loads(capsys.readouterr().out)["policies"][0]
    assert far["misses"] > 0.9


def test_faults_and_load_make_it_worse_and_are_said_in_the_report(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--home", str(home), "--policy", "balanced", "--json"]
    assert main([*options, "--out", str(tmp_path / "calm")]) == 0
    calm = json.loads(capsys.readouterr().out)
    changed = ["--cut", "plant-1:5s:10s", "--throttle", "cloud:3:0:30s", "--scale", "1.5"]
    assert main([*options, *changed, "--out", str(tmp_path / "bad")]) == 0
    bad = json.loads(capsys.readouterr().out)
    assert bad["requests"] == pytest.approx(1.5 * calm["requests"], rel=0.05)
    assert bad["policies"][0]["misses"] > calm["policies"][0]["misses"] + 0.05
    # What was recorded is compared with the same without the faults.
    assert bad["fidelity"]["simulated"]["misses"] == calm["fidelity"]["simulated"]["misses"]
    report = (tmp_path / "bad" / "report.html").read_text()
    assert "plant-1 cut off from all" in report
    assert "cloud 3 times slower" in report
    assert "There are 1.5 requests for each recorded one" in report


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--trace", "last-2h", "--home", "none"], 3, "prime-spark up"),
        (["--trace", "none.csv"], 3, "there is no trace"),
        (["--trace", "t.csv", "--policy", "best"], 2, "weighted_least_outstanding"),
        (["--trace", "t.csv", "--cut", "plant-1:1h"], 2, "SITE:FROM:FOR"),
        (["--trace", "t.csv", "--cut", "plant-9:1h:1h"], 2, "no site 'plant-9'"),
        (["--trace", "t.csv", "--throttle", "cloud:3:soon:1h"], 2, "'soon' is no time"),
        (["--trace", "t.csv", "--start", "moon:0:1"], 2, "no place 'moon'"),
        (["--trace", "t.csv", "--scale", "0"], 2, "above 0"),
        (["--trace", "t.csv", "--fleet", "none.yaml"], 3, "no fleet file"),
        (["--trace", "t.csv", "--seed", "-1"], 2, "a seed is 0 or more"),
        (["--trace", "m.csv", "--fleet", "fleet.yaml"], 2, "no place of the fleet serves"),
        (["--trace", "t.csv", "--out", "t.csv/x"], 1, "cannot be used"),
    ],
)
def test_a_call_that_cannot_be_met_says_why_and_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("time,size,slack\n0,10,1\n1,10,1\n")
    Path("m.csv").write_text("time,size,model\n0,10,m\n1,10,m\n")
    Path("fleet.yaml").write_text(
        "gateways: {a: 1}\nplaces: [{name: p, tier: edge, site: a, service_ms: {n: 3}}]\n"
    )
    assert main(options) == code
    assert says in capsys.readouterr().err


def test_the_command_ends_as_the_simulator_does(tmp_path: Path) -> None:
    done = call(tmp_path / "home", cwd=tmp_path)
    assert done.returncode == 3
    assert "no request of last 24h was recorded" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupt_ends_it_without_a_trace_of_the_stack(tmp_path: Path) -> None:
    rows = [f"{index * 0.004},100,1" for index in range(40_000)]
    (tmp_path / "long.csv").write_text("time,size,slack\n" + "\n".join(rows) + "\n")
    command = [sys.executable, "-m", "cluster.cli.main", "--home", str(tmp_path / "home")]
    command += ["what-if", "--trace", "long.csv", "--policy", "latency,balanced"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True
    ) as child:
        assert child.stderr is not None
        try:
            first = child.stderr.readline()  # the first policy is through, the second runs
            os.killpg(child.pid, signal.SIGINT)
            _, errors = child.communicate(timeout=30)
        finally:
            child.kill()
    assert "latency" in first
    assert child.returncode == 130
    assert "interrupted; nothing was written" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "what-if").exists()


def test_what_runs_now_is_said_of_one_objective_and_replayed_where_there_are_several() -> None:
    one = policies_of([], ["cost"])
    assert [(p.name, p.is_in_force) for p in one] == [
        ("latency", False), ("balanced", False), ("cost", True),
    ]  # fmt: skip
    several = policies_of([], ["cost", "latency"])
    assert several[0].objective is None
    assert [p.is_in_force for p in several] == [True, False, False, False]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("10m", 600), ("2h", 7200), ("1d", 86400)]
)
def test_times_are_said_with_or_without_a_unit(text: str, seconds: float) -> None:
    assert scenario.seconds(text, "cut") == seconds
    with pytest.raises(InvalidInput):
        scenario.seconds(text + "x", "cut")


def test_a_name_with_a_colon_is_a_place_as_well() -> None:
    assert scenario.throttle("edge:7:3:0:60") == {
        "place": "edge:7", "factor": 3.0, "from_s": 0.0, "for_s": 60.0,
    }  # fmt: skip
    assert scenario.cut("a+b:0:60")["other"] == "b"


numbers: Any = st.floats(0, 1e9) | st.sampled_from([0.0, float("nan"), float("inf")])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.tuples(numbers, numbers), max_size=6), min_size=1, max_size=9),
    st.booleans(),
    st.booleans(),
    st.text(max_size=20),
)
def test_whatever_is_drawn_is_well_formed_and_inside_the_picture(
    points: list[list[tuple[float, float]]], x_log: bool, y_log: bool, name: str
) -> None:
    series = [Series(f"{name}{index}", one) for index, one in enumerate(points)]
    for drawn in (
        lines(name, Axis(name, x_log), Axis("y", y_log), series),
        scatter(name, Axis(name, x_log), Axis("y", y_log), series),
    ):
        assert not Page(standalone(drawn)).open
        assert "nan" not in re.sub(r"<(title|text).*?</\1>|aria-label=\"[^\"]*\"", "", drawn)
        for x, y in re.findall(r'cx="(-?[\d.]+)" cy="(-?[\d.]+)"', drawn):
            assert 0 <= float(x) <= 760
            assert 0 <= float(y) <= 320
