"""`sites`: where the gateways are, as a gateway says and as measured from here."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.cli.context import invocation, say, say_json, table
from cluster.cli.life import Json

if TYPE_CHECKING:
    from cluster.config import Settings
    from edge_runtime.entry import Seen

OWN_TOKEN_S = 60.0
Site = Mapping[str, Any]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sites)


def sites(
    context: typer.Context,
    gateway: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Ask this gateway, with the token in PRIME_SPARK_TOKEN; repeat for several.",
        ),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Measure from here which gateway is nearest.")
    ] = False,
    ca: Annotated[
        Path | None, typer.Option(help="Who signed the gateways' certificates (PEM).")
    ] = None,
    allow_http: Annotated[
        bool, typer.Option("--allow-http", help="Send the token over plain HTTP too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the sites, their gateways, and how far they are from each other.

    Asks the gateway of this machine's cluster, or those that --gateway names. Exit code 5 when
    none answers.
    """
    from edge_runtime.entry import EntryClient

    urls: Sequence[str] = gateway or ()
    token = os.environ.get("PRIME_SPARK_TOKEN")
    document: Any = None
    if not urls:
        document, urls, token = _own(invocation(context).settings())
    seen: list[Seen] = []
    if document is None or probe:
        with EntryClient(urls, token=token, ca=ca, allow_http=allow_http) as client:
            document = document or client.sites()
            seen = client.refresh() if probe else []
    if as_json:
        say_json(document | ({"probes": [_probe(each) for each in seen]} if probe else {}))
        return
    table(
        ["site", "zone", "position", "targets up", "round trip", "from", "age", "gateways"],
        [_row(site, document["site"]) for site in document["sites"]],
    )
    if probe:
        say("\nfrom here")
        table(
            ["gateway", "site", "zone", "round trip", ""],
            [
                [
                    each.url,
                    each.site,
                    each.zone,
                    _ms(None if each.rtt_s is None else each.rtt_s * 1e3),
                    "enters here" if each.is_current else each.problem,
                ]
                for each in seen
            ],
        )


def _own(settings: Settings) -> tuple[Any, Sequence[str], str]:
    """Ask the gateway of this machine; return also which gateways to probe, and a token."""
    from cluster.endpoints import Endpoints, get_json
    from cluster.home import Home
    from cluster.identity.keys import load_signing_key
    from cluster.identity.tokens import issue
    from edge_runtime.errors import NotFound, Unavailable

    here = Endpoints.of(settings).rest
    try:
        key = load_signing_key(Home.at(settings.home))
    except NotFound:
        raise Unavailable(
            "no cluster was started here", hint="`prime-spark up`, or name one with --gateway"
        ) from None
    token = issue(key, "prime-spark-sites", ["infer"], OWN_TOKEN_S, time.time(), kind="service")
    document = get_json(f"{here}/v1/sites", token)
    named = [each["url"] for site in document["sites"] for each in site["gateways"]]
    return document, named or [here], token


def _row(site: Site, here: str) -> list[str]:
    up = sum(target["is_up"] for target in site["targets"])
    age_s = site["rtt_age_s"]
    return [
        site["name"] + (" (here)" if site["name"] == here else ""),
        site["zone"] or "",
        "" if site["latitude"] is None else f"{site['latitude']:.2f}, {site['longitude']:.2f}",
        f"{up} of {len(site['targets'])}",
        _ms(site["rtt_ms"]),
        site["rtt_from"],
        "" if age_s is None else f"{age_s:.0f} s",
        " ".join(
            each["url"] + (" (does not answer)" if each["answers"] is False else "")
            for each in site["gateways"]
        ),
    ]


def _probe(seen: Seen) -> dict[str, Any]:
    return {
        "gateway": seen.url,
        "site": seen.site,
        "zone": seen.zone,
        "rtt_ms": None if seen.rtt_s is None else round(seen.rtt_s * 1e3, 3),
        "problem": seen.problem or None,
        "is_nearest": seen.is_current,
    }


def _ms(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:.1f} ms"
