"""The regret of rules as a Markdown page and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from load.bench.machine import stamp
from load.routing.report import half_width


def markdown(name: str, document: Mapping[str, Any]) -> str:
    """Return the page. name: of the JSON and SVG files beside it."""
    machine, plan = document["machine"], document["plan"]
    lines = [
        f"# Regret of the learned rule{_only(document['scenarios'])}",
        "",
        f"{stamp(machine)}. Simulated: "
        f"{plan['seeds']} seeds, {plan['utilisation']:.0%} utilisation, queues by deadline; "
        f"`python -m load.routing.regret --seeds {plan['seeds']} --calm-s {plan['calm_s']:g}`. "
        f"Raw results: [{name}.json]({name}.json).",
        "",
        f"Cost of a request: its price, and {1e6 * plan['miss_usd']:g} micro-dollars for a missed "
        "deadline. Regret is by how much that is more than what the omniscient router had to pay "
        "for the same requests: means over seeds, with the half-width of their 95 % interval. Two "
        "greedy omniscient routers ran (shortest true delay; least score of the default rule with "
        "true delays), and the cheaper one counts. It is no true optimum. `less` compares with the "
        "rule that the model may fall back to, seed by seed: below nothing, the model saved that "
        "much.",
        "",
        f"![Cumulative regret]({name}.svg)",
        "",
    ]
    for scenario in document["scenarios"]:
        lines += _table(scenario)
    return "\n".join(lines).rstrip() + "\n"


def _only(scenarios: Sequence[Mapping[str, Any]]) -> str:
    """Return what tells a page of one scenario from that of all."""
    return f": {scenarios[0]['name']}" if len(scenarios) == 1 else ""


def _table(scenario: Mapping[str, Any]) -> Iterator[str]:
    rules = scenario["rules"]
    prices = list(rules[scenario["oracle"]]["regret_by_miss_usd"])
    yield f"## {scenario['name']}"
    yield ""
    yield (
        f"{scenario['requests']:,} requests in {scenario['duration_s']:.0f} s; compared with: "
        f"{scenario['oracle']}."
    )
    yield ""
    columns = " | ".join(f"regret at {1e6 * float(price):g}" for price in prices)
    yield f"| rule | misses % | micro-$ | regret, micro-$ a request | less | {columns} |"
    yield "|---|---|---|---|---|" + "---|" * len(prices)
    for name, found in rules.items():
        by_price = " | ".join(f"{1e6 * found['regret_by_miss_usd'][p]:.2f}" for p in prices)
        yield (
            f"| {name} | {100 * found['misses']:.3f} | {1e6 * found['usd']:.2f} "
            f"| {_mean(found['regret_usd'])} | {_less(name, rules)} | {by_price} |"
        )
    yield ""
    for name, found in rules.items():
        if found["believed"]:
            yield (
                f"`{name}`: believed for {statistics.mean(found['believed']):.0%} of the time, "
                f"changed {statistics.mean(found['changed']):.1%} of the choices."
            )
            yield ""


def _less(name: str, rules: Mapping[str, Any]) -> str:
    safe = {"learned": "balanced", "learned_latency": "latency"}.get(name)
    if safe is None:
        return ""
    ours, theirs = rules[name]["regret_usd"], rules[safe]["regret_usd"]
    return _mean([a - b for a, b in zip(ours, theirs, strict=True)])


def _mean(values: Sequence[float]) -> str:
    return f"{1e6 * statistics.mean(values):.2f} ± {1e6 * half_width(values):.2f}"


def draw(path: Path, document: Mapping[str, Any]) -> None:
    """Write the picture: cumulative regret over time, and how far the model was believed."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "prime-spark"
    scenarios = document["scenarios"]
    figure, grid = plt.subplots(
        2,
        len(scenarios),
        figsize=(4.2 * len(scenarios), 5.4),
        height_ratios=(3, 1),
        squeeze=False,
    )
    for panel, below, scenario in zip(*grid, scenarios, strict=True):
        _panel(panel, below, scenario)
    handles, labels = grid[0][0].get_legend_handles_labels()
    columns = min(len(labels), 2 * len(scenarios))
    figure.legend(handles, labels, loc="lower center", ncols=columns, fontsize=6)
    figure.tight_layout(rect=(0, 0.13 if columns < len(labels) else 0.05, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _panel(panel: Any, below: Any, scenario: Mapping[str, Any]) -> None:
    for index, (name, found) in enumerate(scenario["rules"].items()):
        if name == scenario["oracle"]:
            continue
        curve = found["curve_usd"]
        at_s = [scenario["duration_s"] * (i + 1) / len(curve) for i in range(len(curve))]
        is_bound = name.startswith("omniscient")
        panel.plot(
            at_s,
            curve,
            label="the other omniscient" if is_bound else name,
            linewidth=1.0,
            linestyle=":" if is_bound else "-",
            color="black" if is_bound else f"C{index}",
        )
        if found["believed"]:
            below.plot(at_s, found["believed"], linewidth=1.0, color=f"C{index}")
    panel.axhline(0.0, linewidth=0.5, color="grey")
    panel.set_title(scenario["name"], fontsize=9)
    panel.set_ylabel("cumulative regret, $", fontsize=8)
    below.set_ylim(-0.05, 1.05)
    below.set_ylabel("believed", fontsize=8)
    below.set_xlabel("seconds", fontsize=8)
