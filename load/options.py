"""What benchmarks in the simulators share on the command line: traces, and how far they are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def add_traces(parser: argparse.ArgumentParser) -> None:
    """Let recorded traces be named, any number of them."""
    parser.add_argument(
        "--trace",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="CSV of the Azure LLM inference family (TIMESTAMP, ContextTokens, GeneratedTokens)",
    )


def progress(total: int) -> Callable[[int], None]:
    """Return what tells the terminal how many of all runs are done."""

    def done(count: int) -> None:
        end = "\n" if count == total else ""
        print(f"\r{count} of {total} runs", end=end, file=sys.stderr, flush=True)

    return done
