"""The runtime is asked for its health, and onnxruntime is imported where a crash does no harm."""

from __future__ import annotations

import pytest

from edge_runtime.doctor import Done, Unread
from edge_runtime.errors import Forbidden, Unavailable
from tests.edge_runtime.doctor.pi import OWN, Pi


def test_a_runtime_that_is_ready_is_well(pi: Pi) -> None:
    assert pi.check("runtime").found == "ready, 1 models"


def test_a_runtime_that_does_not_run_is_a_problem_and_how_to_start_it_is_said(pi: Pi) -> None:
    pi.overview = None
    found = pi.check("runtime")
    assert (found.state, found.found) == ("problem", "no edge runtime runs here")
    assert "systemctl start prime-spark-edge" in found.remedy
    assert not pi.examine().is_good


@pytest.mark.parametrize(("health", "state"), [("degraded", "warning"), ("unready", "problem")])
def test_reasons_of_a_runtime_that_is_not_well_are_told(pi: Pi, health: str, state: str) -> None:
    pi.overview = {"status": health, "reasons": ["digits:1: no device", "disk"], "models": []}
    found = pi.check("runtime")
    assert (found.state, found.found) == (state, f"{health}, 0 models; digits:1: no device; disk")
    assert "journalctl" in found.remedy


def test_a_socket_of_another_user_is_not_taken_for_a_runtime_that_is_down(pi: Pi) -> None:
    pi.overview = Unavailable("the edge runtime does not answer: [Errno 13] Permission denied")
    found = pi.check("runtime")
    assert found.state == "unknown"
    assert "sudo" in found.remedy


@pytest.mark.parametrize("overview", [Forbidden("no"), ValueError("no JSON"), [], {}])
def test_a_runtime_that_answers_strangely_is_a_problem(pi: Pi, overview: object) -> None:
    pi.overview = overview
    assert pi.check("runtime").state == "problem"


def test_the_version_of_onnxruntime_is_told(pi: Pi) -> None:
    assert pi.check("onnxruntime").found == "1.27.0"


@pytest.mark.parametrize(
    ("done", "words"),
    [
        (Done(-4, ""), "killed by SIGILL"),
        (Done(1, "", "Traceback\nImportError: x"), "ImportError: x"),
        (Done(3, ""), "ended with 3"),
        (Done(-99, ""), "killed by signal 99"),
    ],
)
def test_an_onnxruntime_that_cannot_be_imported_is_a_problem(
    pi: Pi, done: Done, words: str
) -> None:
    pi.answers[f"{OWN} onnxruntime"] = done
    found = pi.check("onnxruntime")
    assert found.state == "problem"
    assert words in found.found
    assert "pip install" in found.remedy


def test_an_interpreter_that_cannot_be_started_is_said(pi: Pi) -> None:
    pi.answers[f"{OWN} onnxruntime"] = Unread("exec format error")
    assert pi.check("onnxruntime").state == "unknown"
