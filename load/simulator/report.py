"""The report: one HTML file that needs nothing else, and its charts as files beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from load.routing.plot import front
from load.simulator.charts import Axis, Band, Series, lines, scatter
from load.simulator.comparison import BINS, RANKS, Replayed
from load.simulator.fleet import FleetFile
from load.simulator.result import Result

MOST_PROBLEMS: Final = 20  # broken lines that are shown one by one
MOST_BANDS: Final = 200  # faults that are drawn

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.what { color: #555; margin-top: 0; } .answer { border-left: 4px solid #0072b2; padding: .4rem 1rem;
  background: #f2f7fb; font-size: 1.05rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
tr.now td { background: #f2f7fb; font-weight: 600; }
svg { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
code { background: #f3f3f3; padding: 0 .25rem; } li { margin: .25rem 0; }
.bar { display: inline-block; height: .6rem; background: #0072b2; margin-right: .4rem; }
.warn { background: #fdf3e1; border-left: 4px solid #e69f00; padding: .4rem 1rem; }
"""


def charts(result: Result) -> dict[str, str]:
    """Return the charts by name: pareto, tail, delays, load, misses."""
    replayed = result.replayed
    points = [(one.usd_per_1000, 100 * one.misses) for one in replayed]
    tails = [(one.usd_per_1000, 1e3 * one.p99_s) for one in replayed]
    cost = Axis("dollars for 1,000 requests")
    bands = _bands(result)
    width_s = result.duration_s / BINS
    recorded = result.fidelity.recorded if result.fidelity else None
    distributions = [
        Series(one.policy, _distribution(one), one.is_in_force) for one in result.replayed
    ]
    if recorded is not None:
        distributions.append(Series("recorded", _distribution(recorded), dashed=True))
    return {
        "pareto": scatter(
            "Cost and misses: the line joins policies that none beats in both",
            cost,
            Axis("misses, %"),
            _points(replayed, points),
            front(points),
        ),
        "tail": scatter(
            "Cost and the slowest percent",
            cost,
            Axis("p99, ms"),
            _points(replayed, tails),
            front(tails),
        ),
        "delays": lines(
            "Share of answers within a time",
            Axis("ms to the answer", is_log=True),
            Axis("% of answers"),
            distributions,
        ),
        "load": lines(
            "Requests over time",
            Axis("seconds from the first request"),
            Axis("requests a second"),
            [
                Series(
                    "requests",
                    [
                        ((index + 0.5) * width_s, count / width_s)
                        for index, count in enumerate(replayed[0].bin_requests)
                    ],
                )
            ],
            bands,
        ),
        "misses": lines(
            "Misses over time",
            Axis("seconds from the first request"),
            Axis("% of requests"),
            [
                Series(
                    one.policy,
                    [
                        ((index + 0.5) * width_s, 100 * misses / count if count else 0.0)
                        for index, (misses, count) in enumerate(
                            zip(one.bin_misses, one.bin_requests, strict=True)
                        )
                    ],
                    one.is_in_force,
                )
                for one in replayed
            ],
            bands,
        ),
    }


def html(result: Result, drawn: Mapping[str, str]) -> str:
    """Return the page. drawn: what `charts` returned."""
    recording = result.recording
    headings, rows = result.table()
    marks = ["now" if one.is_in_force else "" for one in result.replayed]
    problems = [str(problem) for problem in recording.problems]
    body = [
        f"<h1>What if: {escape(recording.name)}</h1>",
        f'<p class="what">{escape(result.made_at)}. {result.requests:,} requests over '
        f"{_length(result.duration_s)}, {result.requests / max(result.duration_s, 1e-9):.3g} a "
        f"second; seed {result.seed}. <code>{escape(result.command)}</code></p>",
        f'<p class="answer">{escape(result.answer())}</p>',
        "<h2>Policies side by side</h2>",
        _table(headings, rows, marks),
        "<p>A miss is an answer after its deadline, or none. Refused counts what was refused, "
        "dropped because it could not be in time any more, or lost on a way that was cut.</p>",
        drawn["pareto"],
        drawn["tail"],
        "<h2>How long answers take</h2>",
        drawn["delays"],
        "<h2>Over time</h2>",
        drawn["load"],
        drawn["misses"],
        "<h2>Is the simulation right?</h2>",
        _fidelity(result),
        "<h2>By place</h2>",
        _shares(result),
        _places(result),
        "<h2>What was assumed</h2>",
        _list(result.assumptions()),
        "<h2>What a replay cannot say</h2>",
        _list(result.limits()),
        "<h2>What was read</h2>",
        _list(
            [
                f"{len(recording.requests):,} requests over {_length(recording.duration_s)} from "
                f"{len(recording.files)} file{'s' if len(recording.files) != 1 else ''}",
                f"{recording.retries:,} further attempts, counted with the request they belong to",
                f"{len(problems):,} lines that could not be read",
            ]
        ),
    ]
    if problems:
        more = len(problems) - MOST_PROBLEMS
        shown = problems[:MOST_PROBLEMS] + ([f"and {more:,} more"] if more > 0 else [])
        body.append(f'<div class="warn"><p>Lines left out:</p>{_list(shown)}</div>')
    title = escape(f"What if: {recording.name}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _points(replayed: Sequence[Replayed], points: Sequence[tuple[float, float]]) -> list[Series]:
    return [
        Series(one.policy, [point], one.is_in_force)
        for one, point in zip(replayed, points, strict=True)
    ]


def _distribution(one: Replayed) -> list[tuple[float, float]]:
    return [(1e3 * delay, rank) for delay, rank in zip(one.delays_s, RANKS, strict=True)]


def _bands(result: Result) -> list[Band]:
    fleet: FleetFile = result.scenario.changed()
    last = result.duration_s
    found = [
        Band(f"{cut.site} cut off from {cut.other or 'all'}", cut.from_s, cut.from_s + cut.for_s)
        for cut in fleet.cuts
    ]
    for throttle in fleet.throttles:
        begin = throttle.from_s
        while begin < last:
            name = f"{throttle.place} {throttle.factor:g} times slower"
            found.append(Band(name, begin, begin + throttle.for_s))
            if not throttle.every_s:
                break
            begin += throttle.every_s
    found += [
        Band(f"{start.place} starts", start.from_s, start.from_s + start.cold_s)
        for start in fleet.starts
    ]
    shown = [Band(b.name, b.begin, min(b.end, last)) for b in found if b.begin < last]
    return shown[:MOST_BANDS]


def _fidelity(result: Result) -> str:
    found = result.fidelity
    if found is None:
        return (
            "<p>The trace does not say where requests were served and how long that took, so that "
            "nothing can be compared: trust the order of the policies more than the figures.</p>"
        )
    rows = [
        [place, f"{found.recorded.share.get(place, 0.0):.1%}", f"{share:.1%}"]
        for place, share in found.simulated.share.items()
    ]
    is_near = abs(found.p50 - 1) <= 0.15 and abs(found.p99 - 1) <= 0.30
    verdict = (
        "That is near enough to compare policies by figures."
        if is_near
        else "That is off by more than 15 % at the median or 30 % at the 99th percentile: trust "
        "the order of the policies more than their figures."
    )
    return (
        f"<p>The same requests, the same fleet, the policy that was in force: {escape(str(found))}."
        f" {verdict}</p>" + _table(["place", "recorded", "simulated"], rows)
    )


def _shares(result: Result) -> str:
    places = list(result.replayed[0].share)
    rows = [
        [
            place,
            *(
                f'<span class="bar" style="width:{4 * one.share[place]:.2f}rem"></span>'
                f"{one.share[place]:.1%} (busy {one.busy[place]:.0%})"
                for one in result.replayed
            ),
        ]
        for place in places
    ]
    return _table(["served by", *(one.policy for one in result.replayed)], rows, is_markup=True)


def _places(result: Result) -> str:
    estimate = result.scenario.estimate
    if estimate is None:
        rows = [
            [
                place.name,
                place.tier,
                place.site,
                str(place.replicas),
                f"{place.usd_per_hour:.4g}",
                f"{place.usd_per_gb:.4g}",
                f"{place.service_ms:g}" if isinstance(place.service_ms, float) else "by model",
            ]
            for place in result.scenario.fleet.places
        ]
        headings = ["place", "tier", "site", "replicas", "$ / hour", "$ / GB", "work ms"]
        return _table(headings, rows)
    rows = []
    for found in estimate.places:
        for model, by_bucket in found.seconds.items():
            for index, (count, median_s, p95_s) in by_bucket.items():
                rows.append(
                    [
                        found.name,
                        found.tier,
                        found.site,
                        model or "any",
                        f"up to {(1 << index) - 1:,}",
                        f"{count:,}",
                        f"{1e3 * median_s:.4g}",
                        f"{1e3 * p95_s:.4g}",
                        "unknown" if found.way_s is None else f"{1e3 * found.way_s:.3g}",
                        "1, assumed" if found.lanes is None else str(found.lanes),
                        f"{3600 * found.usd_per_s:.4g}",
                    ]
                )
    headings = [
        "place", "tier", "site", "model", "bytes", "requests", "work p50 ms", "p95 ms", "way ms",
        "at once", "$ / hour",
    ]  # fmt: skip
    return "<p>Measured, from requests that found the place empty:</p>" + _table(headings, rows)


def _table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    marks: Sequence[str] = (),
    *,
    is_markup: bool = False,
) -> str:
    """Return a table; cells are escaped unless they are markup, but for the first of each row."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines_of = []
    for index, row in enumerate(rows):
        mark = f' class="{marks[index]}"' if marks and marks[index] else ""
        cells = [escape(row[0]), *(cell if is_markup else escape(cell) for cell in row[1:])]
        lines_of.append(f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>'
        f"{''.join(lines_of)}</tbody></table></div>"
    )


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _length(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"
