"""`targets` and `route`: where requests can go, and why one went where it went."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cluster.cli.context import invocation, say, say_json, table
from cluster.cli.life import Json

TARGETS = "/v2/prime-spark/targets"
DECISIONS = "/v2/prime-spark/decisions"
Row = Mapping[str, Any]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(targets)
    routes = typer.Typer(
        help="Why requests went where they went.", no_args_is_help=True, add_completion=False
    )
    routes.command()(explain)
    routes.command()(last)
    app.add_typer(routes, name="route")


def targets(
    context: typer.Context,
    watch: Annotated[
        float,
        typer.Option(min=0.0, metavar="SECONDS", help="Show it again so often, until interrupted."),
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Show the places that can serve, and what each gateway knows of them now."""
    while True:
        found = _ask(context, TARGETS)
        if as_json:
            say_json([{"gateway": slot, **document} for slot, document in found.items()])
        else:
            if watch:
                say(f"\x1b[2J\x1b[H{time.strftime('%H:%M:%S')}")
            table(
                _HEADINGS,
                [row for slot, document in found.items() for row in _rows(slot, document)],
            )
        if not watch:
            return
        time.sleep(watch)


def explain(
    context: typer.Context,
    request_id: Annotated[str, typer.Argument(help="The `id` that the request had, or was given.")],
    as_json: Json = False,
) -> None:
    """Say why a request went where it went: each place, what was expected of it, and the choice.

    The gateways remember the last thousand decisions of each replica. Exit code 3 when none of
    them is of this request.
    """
    route = f"{DECISIONS}?limit=1000&id={quote(request_id, safe='')}"
    answers = _ask(context, route)
    found = [
        {"gateway": slot, **decision}
        for slot, document in answers.items()
        for decision in reversed(document["decisions"])
    ]
    if not found:
        seen = sum(document["total"] for document in answers.values())
        from edge_runtime.errors import NotFound

        raise NotFound(
            f"no gateway remembers a request '{request_id}'",
            field="request_id",
            hint=f"{seen} decisions were made; `prime-spark route last` shows the latest",
        )
    if as_json:
        say_json(found)
        return
    for decision in found:
        _say_decision(decision)


def last(
    context: typer.Context,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: Json = False,
) -> None:
    """Show the latest decisions, the newest first."""
    answers = _ask(context, f"{DECISIONS}?limit={count}")
    found: list[dict[str, Any]] = [
        {"gateway": slot, **decision}
        for slot, document in answers.items()
        for decision in document["decisions"]
    ]
    found.sort(key=lambda decision: -decision["at"])
    if as_json:
        say_json(found[:count])
        return
    table(
        ["when", "id", "model", "target", "reason", "expected", "taken", "outcome"],
        [
            [
                _when(decision["at"]),
                decision["id"],
                f"{decision['model']}:{decision['version']}",
                decision["target"],
                decision["reason"],
                f"{decision['expected_ms']:.1f} ms",
                f"{decision['taken_ms']:.1f} ms",
                decision["outcome"],
            ]
            for decision in found[:count]
        ],
    )


_HEADINGS = [
    "gateway", "target", "state", "model", "waits", "work", "way", "busy", "outstanding",
    "usual error", "heard",
]  # fmt: skip


def _ask(context: typer.Context, route: str) -> dict[int, Any]:
    from cluster.gateways import ask_gateways

    return ask_gateways(invocation(context).settings(), route)


def _rows(slot: int, document: Row) -> Sequence[list[str]]:
    rows: list[list[str]] = []
    for target in document["targets"]:
        first = [str(slot), target["name"], target["state"]]
        if target["problem"]:
            first[2] += f" ({target['problem']})"
        rows += [[*first, *_cells(model)] for model in target["models"]]
        if not target["models"]:
            rows.append([*first, *[""] * (len(_HEADINGS) - len(first))])
    return rows


def _cells(model: Row) -> list[str]:
    return [
        f"{model['model']}:{model['version']}",
        f"{model['wait_ms']:.1f} ms",
        f"{model['service_ms']:.2f} ms",
        f"{model['rtt_ms']:.1f} ms",
        f"{model['busy']:.0%}",
        str(model["outstanding"]),
        f"x {model['usual_error']:.2f}" if model["errors_kept"] else "",
        "" if model["heard_s"] is None else f"{model['heard_s']:.1f} s ago",
    ]


def _say_decision(decision: Row) -> None:
    say(
        f"{decision['model']}:{decision['version']} at {_when(decision['at'])}, "
        f"attempt {decision['attempt']}, gateway {decision['gateway']}"
    )
    say(
        f"went to {decision['target']} ({decision['reason']}): "
        f"expected {decision['expected_ms']:.1f} ms, took {decision['taken_ms']:.1f} ms, "
        f"{decision['outcome']}"
    )
    came_from = decision["origin_site"] or "a place that is not known"
    by = {
        "caller": ", as the caller said",
        "geoip": ", by its address",
        "gateway": ", where it came in",
    }
    say(
        f"came from {came_from}{by.get(decision['origin_from'], '')}; "
        f"the way to the target: {decision['rtt_from'].replace('_', ' ')}"
    )
    table(
        ["target", "expected", "late", "price", "ruled out", "the model says"],
        [
            [
                _name(verdict, decision["target"]),
                f"{verdict['expected_ms']:.1f} ms",
                f"{verdict['late']:.1%}",
                f"{verdict['usd'] * 1e6:.2f} µ$",
                verdict["ruled_out"] or "",
                f"{verdict['model_ms']:.1f} ms, late {verdict['model_late']:.1%}"
                if "model_ms" in verdict
                else "",
            ]
            for verdict in decision["considered"]
        ],
    )


def _name(verdict: Row, chosen: str) -> str:
    asleep = " (asleep)" if verdict["is_asleep"] else ""
    return f"{verdict['target']}{asleep}{' <-' if verdict['target'] == chosen else ''}"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))
