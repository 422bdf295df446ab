"""`scaling`: how many replicas there should be, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.context import invocation, say, say_json, table
from cluster.cli.life import Json


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command("scaling")(scaling)


def scaling(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="Decisions to show, the newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """Show what is forecast for the cloud tier, and what changed its replicas, and why."""
    from cluster.scaling_view import read_scaling

    view = read_scaling(invocation(context).settings(), limit)
    if as_json:
        say_json(view.document())
        return
    say(f"scaling is {view.scaling}, {view.minimum} to {view.maximum} replicas")
    if view.scaling != "predictive":
        say("  switch it with inference.scaling=predictive, and inference.max_replicas above")
        say("  inference.min_replicas; see docs/explanation/scaling.md")
        return
    found = view.forecast
    if found is None:
        say("no forecast: the cluster does not run, or has only one replica to give")
    else:
        busy = found["fast_rate"] / found["capacity"] if found["capacity"] else 0.0
        peak = found["peak"] / found["capacity"] if found["capacity"] else 0.0
        used = f"not used: {found['why_not']}" if found["why_not"] else f"by {found['basis']}"
        say(f"work now keeps {busy:.2f} replicas busy; expected are {peak:.2f} ({used})")
    if view.decisions:
        table(["when (UTC)", "replicas", "reason", "which means", "rule"], view.rows())
    else:
        say("nothing has changed the number of replicas yet")
