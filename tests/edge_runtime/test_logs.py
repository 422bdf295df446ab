"""Whatever a process says is one JSON object a line on standard output."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest


def logged(program: str, level: str = "INFO") -> list[dict[str, Any]]:
    """Run a program that logs as the runtime does; return its lines. Nothing is on stderr."""
    text = f"""
import asyncio, logging, os, warnings
from edge_runtime.logs import log_to_stdout
log_to_stdout("{level}")
logger = logging.getLogger("edge_runtime.test")
{program}
"""
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]


def test_a_line_says_when_who_how_bad_and_what() -> None:
    before = datetime.now(UTC)
    (line,) = logged('logger.warning("%s of %s", 1, "two")')
    assert (line["level"], line["logger"], line["message"]) == (
        "warning",
        "edge_runtime.test",
        "1 of two",
    )
    when = datetime.fromisoformat(line["time"])
    assert when.utcoffset() is not None
    assert abs((when - before).total_seconds()) < 30


def test_an_error_s_stack_is_in_its_line() -> None:
    program = """
try:
    raise ValueError("why")
except ValueError:
    logger.exception("it failed")
"""
    (line,) = logged(program)
    assert line["message"] == "it failed"
    assert line["error"].endswith("ValueError: why")


@pytest.mark.parametrize(
    "text", ["one\\ntwo", "\\u2028", "caf\\u00e9", "\\udcff", '\\"', "\\x1b[31m"]
)
def test_any_text_is_one_line(text: str) -> None:
    (line,) = logged(f'logger.info("{text}")')
    assert line["message"] == json.loads(f'"{text}"'.replace("\\x1b", "\\u001b"))


def test_what_libraries_warn_of_is_logged_and_what_they_chat_of_is_not() -> None:
    program = """
logging.getLogger("somebody").info("hello")
logging.getLogger("somebody").error("it is broken")
warnings.warn("old", DeprecationWarning)
async def fail():
    raise ValueError("nobody hears this")
async def main():
    asyncio.create_task(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
asyncio.run(main())
import gc
gc.collect()
"""
    lines = logged(program)
    assert [line["logger"] for line in lines] == ["somebody", "py.warnings", "asyncio"]
    assert "nobody hears this" in lines[2]["error"]


def test_the_level_is_of_our_own_lines() -> None:
    program = 'logger.debug("a"); logger.info("b"); logger.error("c")'
    found = {level: [line["message"] for line in logged(program, level)] for level in LEVELS}
    assert found == {"DEBUG": ["a", "b", "c"], "INFO": ["b", "c"], "ERROR": ["c"]}


LEVELS = ("DEBUG", "INFO", "ERROR")
