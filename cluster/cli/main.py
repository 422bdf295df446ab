"""The command line, composed; and the one place where errors become exit codes.

Exit codes: 0 done, 1 it did not work, 2 the call was wrong, 3 not there, 4 somebody was first
or a port is taken, 5 nothing answers, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Final

import typer

from cluster.cli import (
    access,
    cost,
    edge,
    life,
    models,
    node,
    routing,
    scaling,
    settings,
    sites,
    whatif,
)
from cluster.cli.context import Invocation, pairs
from edge_runtime.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    Overloaded,
    PrimeSparkError,
    Unavailable,
)

EXIT_CODES: Final[Mapping[type[PrimeSparkError], int]] = {
    InvalidInput: 2,
    NotFound: 3,
    Conflict: 4,
    Unavailable: 5,
    Overloaded: 5,
}

HELP: Final = """Run models on edge boxes and in the cloud behind one gateway.

A first round: `prime-spark up` starts a cluster, `prime-spark status` shows it,
`prime-spark token` gives you a credential for curl or tritonclient, and
`prime-spark down` stops everything.
"""

app = typer.Typer(
    help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
for part in (life, routing, access, models, sites, node, edge, cost, whatif, scaling, settings):
    part.add_to(app)


@app.callback()
def flags(
    context: typer.Context,
    home: Annotated[
        str | None, typer.Option(help="Folder of this installation (PRIME_SPARK_HOME).")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Settings to begin from: local, site, cloud or edge.")
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as ports.rest=8080."),
    ] = None,
) -> None:
    """Collect the global flags."""
    overrides: dict[str, object] = dict(pairs(assign or [], "--set"))
    if home is not None:
        overrides["home"] = home
    if profile is not None:
        overrides["profile"] = profile
    context.obj = Invocation(overrides)


def main() -> int:
    """Run the command line; never ends in a stack trace for an expected error."""
    try:
        app(standalone_mode=True)
    except PrimeSparkError as error:
        sys.stderr.write(f"prime-spark: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"  {error.hint}\n")
        return exit_code(error)
    except KeyboardInterrupt:
        sys.stderr.write("prime-spark: interrupted\n")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return 0


def exit_code(error: PrimeSparkError) -> int:
    """Return the exit code of an error, or of the nearest kind above it; 1 for the rest."""
    for kind in type(error).__mro__:
        if kind in EXIT_CODES:
            return EXIT_CODES[kind]
    return 1


if __name__ == "__main__":
    sys.exit(main())
