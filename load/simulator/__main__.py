"""Replay recorded traffic under other policies: `python -m load.simulator`, `prime-spark what-if`.

Reads what this home's gateways recorded (or a file), measures the fleet from it, replays it with
each policy in the simulator, and says what would have become of every request: how fast, how many
missed their deadline, at what cost. Writes report.html (one file, needs nothing else), charts
(SVG), result.json and fleet.yaml below the output folder.

examples:
  python -m load.simulator --trace last-24h
  python -m load.simulator --trace last-7d --policy cost,latency --scale 2
  python -m load.simulator --trace requests.csv --fleet fleet.yaml --cut plant-1:10m:5m
  python -m load.simulator --trace last-2h --throttle edge:3:0:30m --start cloud:10m:30s

Exit status: 0 done, 2 the call was wrong, 3 nothing was recorded, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cluster.cli.main import exit_code
from edge_runtime.errors import InvalidInput, PrimeSparkError
from load.simulator import scenario as wanted
from load.simulator.charts import standalone
from load.simulator.comparison import Policy, Replayed, as_it_was, check, policies_of, run
from load.simulator.fleet import fleet_text
from load.simulator.jobs import Replay
from load.simulator.readers import read, read_home, window_s
from load.simulator.recording import Recording
from load.simulator.report import MOST_PROBLEMS, charts, html
from load.simulator.result import Fidelity, Result
from load.simulator.scenario import Changes, Scenario, scenario
from load.simulator.world import World

HOME: Final = "~/.prime-spark"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, replay, write and print; 0 when that was possible."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        result = _what_if(options, given)
        _write(result, options.out)
    except PrimeSparkError as error:
        print(f"what-if: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return exit_code(error)
    except OSError as error:
        where = error.filename or options.out
        print(f"what-if: {where} cannot be used: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nwhat-if: interrupted; nothing was written", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(result.document(), indent=2))
    else:
        _print(result)
    print(f"{options.out / 'report.html'}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="load.simulator", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--trace",
        default="last-24h",
        metavar="last-24h|FILE",
        help="what to replay: last-24h, last-2h, last-7d of the home's request logs, or a file "
        "(request\nlog, CSV with time,size,slack, Azure LLM trace); default last-24h",
    )
    parser.add_argument("--home", type=Path, help=f"the home to read; PRIME_SPARK_HOME or {HOME}")
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="NAME,NAME",
        help="policies to compare: latency, balanced, cost, recorded (each request's own), a "
        "classical\nrule such as weighted_least_outstanding, or omniscient; default: what runs "
        "now, and all objectives",
    )
    parser.add_argument(
        "--fleet",
        type=Path,
        metavar="FILE",
        help="places, ways and prices (YAML); default: measured",
    )
    parser.add_argument(
        "--cut",
        action="append",
        default=[],
        metavar=wanted.CUT.split(",")[0],
        help=f"a site reaches nothing else for a time ({wanted.CUT}); 90s, 10m, 2h from the first "
        "request",
    )
    parser.add_argument(
        "--throttle",
        action="append",
        default=[],
        metavar=wanted.THROTTLE,
        help="a place is FACTOR times slower for a time",
    )
    parser.add_argument(
        "--start",
        action="append",
        default=[],
        metavar=wanted.START,
        help="one more replica of a place is started at FROM and serves after COLD",
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="X", help="X requests for each recorded one"
    )
    parser.add_argument(
        "--speed", type=float, default=1.0, metavar="X", help="the same requests in 1/X of the time"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn; default 1")
    parser.add_argument(
        "--out", type=Path, default=Path("what-if"), metavar="DIR", help="default what-if"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _what_if(options: argparse.Namespace, given: Sequence[str]) -> Result:
    if options.seed < 0:
        raise InvalidInput("a seed is 0 or more", field="seed")
    recording = _recording(options)
    changes = Changes(
        cuts=[wanted.cut(text) for text in options.cut],
        throttles=[wanted.throttle(text) for text in options.throttle],
        starts=[wanted.start(text) for text in options.start],
        load=options.scale,
        speed=options.speed,
    )
    found = scenario(recording, options.fleet, changes)
    names = [name.strip() for text in options.policy for name in text.split(",") if name.strip()]
    policies = policies_of(names, recording.objectives)
    world = found.changed().world()
    replay = _replay(found, world, options.seed, load=options.scale, speed=options.speed)
    check(replay, world)
    _tell_problems(recording)
    replayed = [_run(policy, replay, world, options.seed) for policy in policies]
    return Result(
        found,
        replayed,
        _fidelity(found, policies, replayed, options.seed),
        len(replay.requests),
        replay.duration_s,
        options.seed,
        shlex.join(["prime-spark", "what-if", *given]),
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _recording(options: argparse.Namespace) -> Recording:
    if window_s(options.trace) is None:
        return read(Path(options.trace))
    home = options.home or Path(os.environ.get("PRIME_SPARK_HOME") or HOME)
    return read_home(home, options.trace, time.time())


def _replay(
    found: Scenario, world: World, seed: int, *, load: float = 1.0, speed: float = 1.0
) -> Replay:
    return found.recording.replay(seed, load=load, speed=speed, deadlines=world.classes)


def _fidelity(
    found: Scenario, policies: Sequence[Policy], replayed: Sequence[Replayed], seed: int
) -> Fidelity | None:
    """Compare what was recorded with the same in the simulator, without what is different now."""
    recording = found.recording
    if not recording.says_places:
        return None
    recorded = as_it_was(recording.requests)
    if not found.changes.any:
        for policy, one in zip(policies, replayed, strict=True):
            if policy.is_in_force:
                return Fidelity(recorded, one)
    policy = policies_of(["recorded"], recording.objectives)[0]
    world = found.fleet.world()
    return Fidelity(recorded, _run(policy, _replay(found, world, seed), world, seed))


def _run(policy: Policy, replay: Replay, world: World, seed: int) -> Replayed:
    began = time.monotonic()
    total = len(replay.requests)

    is_terminal = sys.stderr.isatty()

    def tell(count: int) -> None:
        is_done = count == total
        if is_terminal or is_done:
            passed_s = time.monotonic() - began
            text = f"{policy.name:<28} {count / total:4.0%}  {passed_s:6.1f} s"
            begin, end = ("\r" if is_terminal else ""), ("\n" if is_done else "")
            print(f"{begin}{text}", end=end, file=sys.stderr, flush=True)

    return run(policy, replay, world, seed, tell)


def _tell_problems(recording: Recording) -> None:
    problems = recording.problems
    for problem in problems[:MOST_PROBLEMS]:
        print(f"left out: {problem}", file=sys.stderr)
    if len(problems) > MOST_PROBLEMS:
        more = len(problems) - MOST_PROBLEMS
        print(f"left out: {more:,} more lines, all in result.json", file=sys.stderr)


def _write(result: Result, out: Path) -> None:
    drawn = charts(result)
    out.mkdir(parents=True, exist_ok=True)
    for name, svg in drawn.items():
        (out / f"{name}.svg").write_text(standalone(svg), "utf-8")
    (out / "result.json").write_text(json.dumps(result.document(), indent=1) + "\n", "utf-8")
    (out / "fleet.yaml").write_text(fleet_text(result.scenario.fleet), "utf-8")
    (out / "report.html").write_text(html(result, drawn), "utf-8")


def _print(result: Result) -> None:
    headings, rows = result.table()
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    for row in [headings, *rows]:
        cells = [
            cell.ljust(width) if index in (0, len(row) - 1) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    print()
    print(result.answer())
    if result.fidelity is not None:
        print(f"Fidelity: {result.fidelity}.")
    else:
        print("Fidelity: the trace does not say where requests were served; nothing to compare.")
    for text in result.assumptions():
        print(f"Assumed: {text}")


if __name__ == "__main__":
    sys.exit(main())
