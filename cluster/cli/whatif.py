"""`what-if`: recorded traffic under other policies, in the simulator.

The simulator is a program of its own, which calls the same decisions as the gateway; this command
hands it the home and the options, and passes on what it prints and how it ends.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer

from cluster.cli.context import invocation
from cluster.cli.life import Json
from edge_runtime.errors import Unsupported

PROGRAM: Final = "load.simulator"

Trace = Annotated[
    str,
    typer.Option(
        metavar="last-24h|FILE",
        help="What to replay: last-24h, last-2h, last-7d of this home's request logs, or a file.",
    ),
]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="NAME,NAME",
        help="Policies: latency, balanced, cost, recorded, a classical rule, omniscient.",
    ),
]
Fleet = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Places, ways and prices (YAML); measured if unset."),
]
Cuts = Annotated[
    list[str] | None,
    typer.Option("--cut", metavar="SITE:FROM:FOR", help="A site is cut off, as plant-1:10m:5m."),
]
Throttles = Annotated[
    list[str] | None,
    typer.Option(
        "--throttle", metavar="PLACE:FACTOR:FROM:FOR", help="A place is slower, as edge:3:0:30m."
    ),
]
Starts = Annotated[
    list[str] | None,
    typer.Option("--start", metavar="PLACE:FROM:COLD", help="One more replica, as cloud:10m:30s."),
]
Scale = Annotated[float, typer.Option(metavar="X", help="X requests for each recorded one.")]
Speed = Annotated[float, typer.Option(metavar="X", help="The same requests in 1/X of the time.")]
Seed = Annotated[int, typer.Option(help="Of all that is drawn.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where report and charts are written.")]


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command("what-if")(what_if)


def what_if(
    context: typer.Context,
    trace: Trace = "last-24h",
    policy: Policies = None,
    fleet: Fleet = None,
    cut: Cuts = None,
    throttle: Throttles = None,
    start: Starts = None,
    scale: Scale = 1.0,
    speed: Speed = 1.0,
    seed: Seed = 1,
    out: Out = Path("what-if"),
    as_json: Json = False,
) -> None:
    """Replay recorded traffic under other policies, before you switch one on.

    It says what would have become of every request: how fast, how many missed
    their deadline, at what cost. Prints a table, and writes report.html, charts
    and the measured fleet below --out.

    The last day: `prime-spark what-if`

    Twice the load of a week: `prime-spark what-if --trace last-7d --scale 2`

    A site cut off for five minutes: `prime-spark what-if --cut plant-1:10m:5m`
    """
    if find_spec(PROGRAM.partition(".")[0]) is None:
        raise Unsupported(
            "the simulator is not installed here", hint="install the package 'prime-spark' whole"
        )
    # -P: a folder `load` where the command is called is not ours.
    command = [sys.executable, "-P", "-m", PROGRAM, "--trace", trace]
    command += ["--home", invocation(context).settings().home]
    for name, values in (
        ("--policy", policy),
        ("--cut", cut),
        ("--throttle", throttle),
        ("--start", start),
    ):
        for value in values or ():
            command += [name, value]
    if fleet is not None:
        command += ["--fleet", str(fleet)]
    command += ["--scale", str(scale), "--speed", str(speed), "--seed", str(seed)]
    command += ["--out", str(out), *(["--json"] if as_json else [])]
    code = _run(command)
    if code:
        raise typer.Exit(code)


def _run(command: list[str]) -> int:
    """Run a program to its end; it gets an interrupt from the terminal as this process does."""
    with subprocess.Popen(command) as child:
        while True:
            try:
                code = child.wait()
            except KeyboardInterrupt:
                continue
            return code if code >= 0 else 128 - code
