"""The comparison as a Markdown page and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from load.bench.machine import measured_on
from load.routing.fidelity.judge import P50_WITHIN, P99_WITHIN
from load.routing.fidelity.traffic import CLASSES, SITES

LABELS: Final = {"p50_s": "p50", "p95_s": "p95", "p99_s": "p99"}
SIDES: Final = ("real", "simulated")


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the side-by-side table."""
    yield (
        "| rule | load | p50 real | simulated | ratio | p95 real | simulated | ratio "
        "| p99 real | simulated | ratio | mean real | simulated | misses % real | simulated "
        "| edge % real | simulated |"
    )
    yield "|---|---|" + "---|" * 15
    for cell in document["cells"]:
        real, simulated = cell["real"], cell["simulated"]
        columns = [cell["subject"], f"{cell['utilisation']:.0%}"]
        for key in LABELS:
            columns += [_ms(real[key]), _ms(simulated[key]), f"{simulated[key] / real[key]:.2f}"]
        columns += [_ms(real["mean_s"]), _ms(simulated["mean_s"])]
        columns += [f"{100 * one['misses']:.1f}" for one in (real, simulated)]
        columns += [f"{100 * _edge(one['share']):.1f}" for one in (real, simulated)]
        yield "| " + " | ".join(columns) + " |"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f}"


def _edge(share: Mapping[str, float]) -> float:
    return sum(part for name, part in share.items() if name.startswith("edge/"))


def markdown(name: str, document: Mapping[str, Any]) -> str:
    """Return the page. name: of the JSON and SVG files beside it."""
    machine, plan = document["machine"], document["plan"]
    turns = list(document["parameters"].values())
    shape = plan["shape"]
    lines = [
        "# The simulator against a real cluster",
        "",
        f"{measured_on(machine)}. "
        f"`python -m load.routing.fidelity`, {document['took_s'] / 60:.0f} minutes. "
        f"Figures: [{name}.json]({name}.json).",
        "",
        f"A cluster on one machine: an edge box with a fake accelerator that waits "
        f"{1e3 * shape[0]:g} ms for a row and {1e3 * shape[1]:g} ms for each more of a batch, and "
        f"a cloud tier of one replica that computes. Trace `{plan['trace']}`: {SITES} sites send a "
        f"part each, pressed to {plan['lead'] + plan['seconds']:g} s, of which the first "
        f"{plan['lead']:g} s are not judged; {plan['rounds']} rounds with other parts. Requests "
        f"are sent when they are due; {_classes()}. The simulator replays the same arrivals "
        f"({plan['simulations']} seeds) with what was measured after each start, each place by "
        "itself (median, least and most of all starts):",
        "",
        "| place | a row, ms | once a batch | way, ms | spread | under way |",
        "|---|---|---|---|---|---|",
        *_places(turns),
        "",
        f"Client to gateway and back {_of(turns, 'door_s', 1e3)} ms, of which the gateway works "
        f"{_of(turns, 'gateway_s', 1e3)} for one request after another; reports every "
        f"{_of(turns, 'report_s', 1e3)} ms. Load is of {document['capacity']:.0f} requests a "
        "second, what both places did without batches at the first start.",
        "",
        "Times in ms from sending to the answer, of those answered; `mean` is of all, a request "
        "without an answer counted with all the time that it had. Ratios are simulated over real. "
        f"The client sent no more than {document['client_late_p99_ms']:.0f} ms late (p99 of a "
        "run), and what it really sent is replayed.",
        "",
        f"![Simulated against real]({name}.svg)",
        "",
        *table(document),
        "",
        "## Marks",
        "",
        "Two rules have an order where their real figures are more than a tenth apart and each "
        "round, in which both had the same arrivals, says the same; the others are ties. Tau is "
        "Kendall's, over the pairs that have an order. Beside a figure are those of the single "
        "rounds.",
        "",
        "| of | what | found | rounds | limit | |",
        "|---|---|---|---|---|---|",
        *(_mark(verdict) for verdict in document["marks"]),
        "",
        "| load | order by | tau | pairs | ties | the other way round |",
        "|---|---|---|---|---|---|",
        *(
            f"| {one['utilisation']:.0%} | {one['by']} | {one['tau']:.2f} | {one['pairs']} "
            f"| {one['tied']} | {', '.join(' and '.join(pair) for pair in one['wrong'])} |"
            for one in document["orders"]
        ),
        "",
        "## What it does not show",
        "",
        "Two places, close to each other, of one replica each, one gateway, one model, requests of "
        "one size, on one machine of few processors, where what serves and what computes share "
        "them. That a place is far, fails or starts is not compared here "
        "([](routing-faults.md) has faults on a real cluster).",
        "",
    ]
    return "\n".join(lines)


def _classes() -> str:
    return ", ".join(f"{share:.0%} of them have {1e3 * slack_s:g} ms" for share, slack_s in CLASSES)


def _places(turns: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for places in zip(*(turn["places"] for turn in turns), strict=True):
        yield (
            f"| {places[0]['name']} | {_of(places, 'base_s', 1e3)} | {_of(places, 'fixed', 1e2)} % "
            f"| {_of(places, 'way_s', 1e3)} | {_of(places, 'spread', 1e2)} % "
            f"| {places[0]['workers']} |"
        )


def _of(those: Sequence[Mapping[str, Any]], key: str, factor: float) -> str:
    values = [factor * float(one[key]) for one in those]
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _mark(verdict: Mapping[str, Any]) -> str:
    mark, found = verdict["mark"], verdict["found"]
    sign = "≤" if mark["how"] == "at_most" else "≥"
    return (
        f"| {mark['subject']} | {mark['title']} | {found['value']:.2f} "
        f"| {found['least']:.2f} to {found['most']:.2f} | {sign} {mark['limit']:g} "
        f"| {'held' if verdict['is_met'] else '**not held**'} |"
    )


def draw(path: Path, document: Mapping[str, Any]) -> None:
    """Write the picture: simulated over real, p50 and p99, with their margins."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "prime-spark"
    utilisations = document["plan"]["utilisations"]
    subjects = document["plan"]["subjects"]
    figure, panels = plt.subplots(1, 2, figsize=(9.0, 4.4))
    for panel, (key, within) in zip(
        panels, (("p50_s", P50_WITHIN), ("p99_s", P99_WITHIN)), strict=True
    ):
        values = [1e3 * cell[side][key] for cell in document["cells"] for side in SIDES]
        ends = [0.8 * min(values), 1.25 * max(values)]
        panel.plot(ends, ends, color="black", linewidth=0.8)
        panel.fill_between(
            ends,
            [(1 - within) * end for end in ends],
            [(1 + within) * end for end in ends],
            color="grey",
            alpha=0.2,
            linewidth=0,
        )
        for cell in document["cells"]:
            panel.plot(
                1e3 * cell["real"][key],
                1e3 * cell["simulated"][key],
                "o^sDv"[utilisations.index(cell["utilisation"]) % 5],
                color=f"C{subjects.index(cell['subject'])}",
                markersize=6,
            )
        panel.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        panel.set_title(f"{LABELS[key]}, grey: within {within:.0%}", fontsize=9)
        panel.set_xlabel("real, ms", fontsize=8)
        panel.set_ylabel("simulated, ms", fontsize=8)
    for index, subject in enumerate(subjects):
        panels[0].plot([], [], "o", color=f"C{index}", label=subject)
    for index, utilisation in enumerate(utilisations):
        panels[0].plot([], [], "o^sDv"[index % 5], color="grey", label=f"{utilisation:.0%}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), fontsize=7)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
