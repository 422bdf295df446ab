"""`up`, `down`, `status`, `doctor`: the life of a cluster on this machine."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.context import invocation, say, say_json, table

if TYPE_CHECKING:
    from cluster.launch import Progress

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(doctor)


def up(context: typer.Context) -> None:
    """Start the cluster: head, edge node, front door, applications. Safe to repeat."""
    from cluster.launch import up as start

    endpoints = start(invocation(context).settings(), progress())
    say(f"REST       {endpoints.rest}")
    say(f"gRPC       {endpoints.grpc.partition('://')[2]}")
    say(f"dashboard  {endpoints.dashboard}   (Ray's token: `prime-spark token --ray`)")
    say("A credential for clients: `prime-spark token`")


def down(context: typer.Context) -> None:
    """Stop everything of this home: no process, port or temporary file stays."""
    from cluster.launch import down as stop

    was_running = stop(invocation(context).settings(), progress())
    say("stopped" if was_running else "nothing was running")


def status(context: typer.Context, as_json: Json = False) -> None:
    """Show nodes, models, deployments and endpoints. Exit code 5 when nothing runs."""
    from cluster.status import read_status

    found = read_status(invocation(context).settings())
    if as_json:
        say_json(found.document())
    else:
        say(f"cluster {found.state}" + "".join(f"\n  {reason}" for reason in found.reasons))
        for title, headings, rows in found.tables():
            say(f"\n{title}")
            table(list(headings), [list(row) for row in rows])
    if found.state == "stopped":
        raise typer.Exit(5)


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Check every part and list every listener: its address, and who may use it."""
    from cluster.doctor import examine

    report = examine(invocation(context).settings())
    if as_json:
        say_json(report.document())
    else:
        say("listeners")
        table(
            ["address", "process", "what it is", "who may use it"],
            [[x.address, x.process, x.purpose, x.access] for x in report.listeners],
        )
        say("\nchecks")
        table(
            ["", "check", "found"],
            [["ok" if c.is_good else "!!", c.name, c.found] for c in report.checks],
        )
    if not report.is_good:
        raise typer.Exit(1)


def progress() -> Progress:
    """Return a progress display: a line a finished step, on standard error."""
    began = time.monotonic()

    def tell(step: str, state: str, detail: str) -> None:
        mark = {"started": "..", "done": "ok", "failed": "!!"}[state]
        if state == "started" and not sys.stderr.isatty():
            return
        end = "\r" if state == "started" else "\n"
        text = f"{time.monotonic() - began:5.1f} s  {mark}  {step}  {detail}"
        sys.stderr.write(f"{text:<78}{end}")
        sys.stderr.flush()

    return tell
