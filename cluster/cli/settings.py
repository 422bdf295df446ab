"""`config`: the settings in force, and where each came from."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cluster.cli.context import invocation, say_json, table
from cluster.cli.life import Json


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    config = typer.Typer(help="The settings in force.")
    config.command("show")(show)
    app.add_typer(config, name="config", no_args_is_help=True)


def show(
    context: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each came from.")] = False,
    as_json: Json = False,
) -> None:
    """Show every setting."""
    from cluster.config import known_keys, load_with_origins

    found, origins = load_with_origins(os.environ, invocation(context).overrides)
    document = found.model_dump(mode="json")
    rows: list[list[str]] = []
    for key in known_keys():
        value: object = document
        for part in key.split("."):
            value = value[part] if isinstance(value, dict) else value
        rows.append([key, "" if value is None else str(value), origins.get(key, "default")])
    if as_json:
        say_json({key: {"value": value, "origin": where} for key, value, where in rows})
        return
    headings = ["setting", "value", "from"]
    table(headings if origin else headings[:2], rows if origin else [row[:2] for row in rows])
