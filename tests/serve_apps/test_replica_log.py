"""A replica's log is one JSON object a line, and old files go."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from serve_apps.replica_log import KEPT_FILES, PACKAGES, log_to

SAYS = logging.getLogger("serve_apps.something")


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    """Give the process's loggers back as they were."""
    loggers = [logging.getLogger(package) for package in PACKAGES]
    before = [(each, each.handlers, each.level, each.propagate) for each in loggers]
    yield
    for each, handlers, level, propagate in before:
        for handler in set(each.handlers) - set(handlers):
            handler.close()
        each.handlers, each.propagate = handlers, propagate
        each.setLevel(level)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_what_is_said_is_on_disk_at_once_with_time_level_and_logger(tmp_path: Path) -> None:
    log_to(tmp_path / "logs", "gateway-0")
    SAYS.info("target %s is up", "cloud")
    (line,) = _lines(tmp_path / "logs" / "gateway-0.log")
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {
        "level": "info",
        "logger": "serve_apps.something",
        "message": "target cloud is up",
    }


def test_text_of_many_lines_and_exceptions_stay_on_one_line(tmp_path: Path) -> None:
    log_to(tmp_path, "gateway-0")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        SAYS.exception("ünfit\n%s", "text")
    (line,) = _lines(tmp_path / "gateway-0.log")
    assert line["message"] == "ünfit\ntext"
    assert "ValueError: two\nlines" in line["error"]


def test_debug_and_other_people_s_words_stay_out(tmp_path: Path) -> None:
    log_to(tmp_path, "gateway-0")
    SAYS.debug("detail")
    logging.getLogger("somebody.else").error("not ours")
    assert _lines(tmp_path / "gateway-0.log") == []


def test_only_the_newest_files_of_a_kind_are_kept(tmp_path: Path) -> None:
    for number in range(KEPT_FILES + 5):
        old = tmp_path / f"inference-cloud-{number}.log"
        old.touch()
        os.utime(old, (number, number))
    other = tmp_path / "gateway-0.log"
    other.touch()
    os.utime(other, (0, 0))
    log_to(tmp_path, "inference-edge-x")
    kept = {int(path.stem.rpartition("-")[2]) for path in tmp_path.glob("inference-cloud-*")}
    assert kept == set(range(5, KEPT_FILES + 5))
    assert other.exists()
