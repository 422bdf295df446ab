"""What every command shares: settings from flags, output for people or machines."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from cluster.config import Settings
    from cluster.home import Home


@dataclass(slots=True)
class Invocation:
    """The global flags; settings are read when a command first asks for them."""

    overrides: dict[str, object] = field(default_factory=dict)

    def settings(self) -> Settings:
        from cluster.config import load_settings

        return load_settings(os.environ, self.overrides)

    def home(self) -> Home:
        from cluster.home import Home

        return Home.at(self.settings().home)


def invocation(context: typer.Context) -> Invocation:
    """Return the flags of this call."""
    found: Invocation = context.obj
    return found


def say_json(document: object) -> None:
    """Print a document for machines: one JSON value on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, sort_keys=False) + "\n")


def say(text: str = "") -> None:
    """Print a line for people on standard output."""
    sys.stdout.write(text + "\n")


def table(headings: list[str], rows: list[list[str]]) -> None:
    """Print a table for people; it keeps its columns when piped."""
    from rich.console import Console
    from rich.table import Table

    is_terminal = sys.stdout.isatty()
    grid = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*row)
    console = Console(
        width=None if is_terminal else 200, highlight=False, markup=False, emoji=False
    )
    console.print(grid)


def actor() -> str:
    """Return who is doing this, for the registry's history."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.geteuid()}"


def pairs(values: list[str], what: str) -> Mapping[str, Any]:
    """Read `key=value` arguments; values are YAML scalars. Raises InvalidInput."""
    import yaml

    from edge_runtime.errors import InvalidInput

    found: dict[str, Any] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidInput(f"{what} takes KEY=VALUE, not '{text}'", field=what)
        found[key] = yaml.safe_load(value)
    return found
