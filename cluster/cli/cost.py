"""`prices` and `budgets`: what serving costs, and what of the budgets is spent."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cluster.cli.context import invocation, say, say_json, table
from cluster.cli.life import Json


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(prices)
    app.command()(budgets)


def prices(
    context: typer.Context,
    rates: Annotated[
        bool, typer.Option("--rates", help="Show what each tier costs by them instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the price book in force: every figure, its source, its date, and where it was set.

    The setting cost.price_book names a file with prices of your own; it needs to hold only what
    is different.
    """
    from dataclasses import asdict

    from cluster.cost.prices import read_book, read_figures

    settings = invocation(context).settings()
    path = settings.cost.price_book
    if not rates:
        figures = read_figures(path)
        if as_json:
            say_json({figure.key: asdict(figure) for figure in figures})
            return
        headings = ["price", "value", "source", "date", "from"]
        table(headings, [[f.key, _text(f.value), f.source, f.date, f.origin] for f in figures])
        return
    book = read_book(path)
    sites = {"colocated": settings.site, "cloud": settings.site, "edge": settings.edge.site}
    found = {
        tier: {"site": site, **book.rates(tier, site)._asdict()} for tier, site in sites.items()
    }
    if as_json:
        say_json(found)
        return
    table(
        [
            "tier",
            "site",
            "$ a busy hour",
            "of it energy and carbon",
            "$ a GB",
            "g CO2e a busy hour",
        ],
        [
            [
                tier,
                site,
                _text(3600 * (hourly := book.rates(tier, site)).usd_per_s),
                _text(3600 * (hourly.usd_per_s - hourly.replica_usd_per_s)),
                _text(1e9 * hourly.egress_usd_per_byte),
                _text(3600 * hourly.busy_w * hourly.carbon_g_per_j),
            ]
            for tier, site in sites.items()
        ],
    )


def budgets(context: typer.Context, as_json: Json = False) -> None:
    """Show each budget: what all gateways spent of it, what happens beyond, when it turns.

    Budgets are settings: budgets.limits in config.yaml.
    """
    from cluster.cost.spending import read_spent
    from policies.cost import Spending

    settings = invocation(context).settings()
    home = invocation(context).home()
    now = time.time()
    spending = Spending(settings.budgets.budgets())
    spending.learn(list(read_spent(home.budgets).values()), now)
    found = spending.totals(now)
    if as_json:
        say_json(
            [
                {
                    "name": one.budget.name,
                    "tenant": one.budget.tenant,
                    "model": one.budget.model,
                    "usd": one.budget.usd,
                    "period": one.budget.period,
                    "spent_usd": one.spent_usd,
                    "action": one.budget.action,
                    "is_exceeded": one.spent_usd >= one.budget.usd,
                    "turns_in_s": round(one.turns_in_s, 3),
                }
                for one in found
            ]
        )
        return
    if not found:
        say("No budget is set. An example for config.yaml:")
        say("  budgets:")
        say("    limits:")
        say("      - {name: everything, usd_per_day: 20, action: alert}")
        return
    table(
        ["budget", "of", "$", "spent", "share", "then", "turns in"],
        [
            [
                one.budget.name,
                _whose(one.budget.tenant, one.budget.model),
                f"{one.budget.usd:g} a {one.budget.period}",
                _text(one.spent_usd),
                f"{100 * one.spent_usd / one.budget.usd:.0f} %",
                one.budget.action,
                f"{one.turns_in_s / 3600:.1f} h",
            ]
            for one in found
        ],
    )


def _whose(tenant: str | None, model: str | None) -> str:
    parts = [f"{what} {name}" for what, name in (("tenant", tenant), ("model", model)) if name]
    return ", ".join(parts) or "everything"


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
