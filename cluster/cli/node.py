"""`node`: the Ray nodes of this machine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cluster.cli.context import invocation, say
from cluster.cli.life import progress


class LocalNode(StrEnum):
    """The nodes that can be started and killed alone; the head is `up` and `down`."""

    edge = "edge"


Which = Annotated[LocalNode, typer.Argument(help="Which node of this machine.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    nodes = typer.Typer(help="Start and kill nodes of this machine.")
    nodes.command("start")(start)
    nodes.command("kill")(kill)
    nodes.command("join")(join)
    app.add_typer(nodes, name="node", no_args_is_help=True)


def start(context: typer.Context, node: Which) -> None:
    """Start a node of the running cluster again."""
    from cluster.launch import start_edge

    start_edge(invocation(context).settings(), progress())
    say(f"node '{node.value}' has joined; `prime-spark status` shows when its target is up")


def kill(context: typer.Context, node: Which) -> None:
    """Kill a node's processes at once (SIGKILL), as a power cut would."""
    from cluster.launch import kill_edge

    say(f"killed {kill_edge(invocation(context).settings())} processes of node '{node.value}'")


def join(
    context: typer.Context,
    head: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of the head's GCS; the setting edge.head if unset."),
    ] = None,
    runtime: Annotated[
        bool,
        typer.Option(help="Start the edge runtime where none answers; not where systemd does."),
    ] = True,
) -> None:
    """Run this box as an edge node until SIGTERM: its runtime, and a raylet beside it.

    The runtime is started unless one answers already, and clients of the site never depend on the
    head. The raylet joins the head when it can be reached, and again whenever it has to; it carries
    the labels of tier, site and accelerator. Needs the cluster's Ray token in identity/ray-token.
    """
    import asyncio

    from cluster.supervisor import supervise
    from edge_runtime.logs import log_to_stdout

    call = invocation(context)
    if head is not None:
        call.overrides["edge.head"] = head
    home = call.home()
    home.make_edge_run()
    home.make_run()
    log_to_stdout()
    asyncio.run(supervise(home, call.settings(), keeps_runtime=runtime))
