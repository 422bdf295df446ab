"""`edge`: the runtime of an edge box, and what it holds."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.cli.artifacts import HELP, read_file
from cluster.cli.context import invocation, pairs, say, say_json, table
from cluster.cli.life import Json
from edge_runtime.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from cluster.config import Settings
    from cluster.home import Home
    from edge_runtime.app import Places
    from edge_runtime.auth import ApiKeys
    from edge_runtime.packages import PackageFolder
    from edge_runtime.serving_state import ServingState


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    edge = typer.Typer(help="The edge runtime: one process that serves models on this box.")
    edge.command("run")(run)
    edge.command("status")(status)
    edge.command("doctor")(doctor)
    edge.command("bench")(bench)
    edge.command("drain")(drain)
    edge.command("resume")(resume)
    models = typer.Typer(help="Model packages on this box.")
    models.command("list")(list_models)
    models.command("add")(add_model)
    models.command("remove")(remove_model)
    edge.add_typer(models, name="models", no_args_is_help=True)
    app.add_typer(edge, name="edge", no_args_is_help=True)


def run(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="The settings file; $PRIME_SPARK_HOME/config.yaml if unset."),
    ] = None,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Serve this box's models until SIGTERM; logs are JSON lines on standard output.

    REST and gRPC for the site (settings edge.address, edge.ports) ask for a token or an API key;
    the Unix socket edge.sock is for callers on this box. Without a key set in
    identity/jwks.json the box makes one of its own: `prime-spark token` gives tokens for it.
    """
    import asyncio

    if config is not None:
        os.environ["PRIME_SPARK_CONFIG"] = str(config)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines are not JSON; failures are raised
    level = log_level.upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise InvalidInput(f"there is no log level '{log_level}'", field="--log-level")
    settings = invocation(context).settings()

    from cluster.home import Home
    from cluster.identity.keys import ensure_signing_key
    from edge_runtime.app import RuntimeConfig, serve
    from edge_runtime.logs import log_to_stdout
    from edge_runtime.systemd import Notifier

    home = Home.at(settings.home)
    log_to_stdout(level)
    home.make_edge_run()
    if not home.jwks.exists():
        ensure_signing_key(home)
    runtime = RuntimeConfig(
        places=_places(home, settings),
        edge=settings.edge,
        engine=settings.engine,
        limits=settings.limits,
        jwks=json.loads(home.jwks.read_bytes()),
        api_keys=_api_keys(home),
        version=_version(),
    )
    asyncio.run(serve(runtime, Notifier(os.environ)))


def status(context: typer.Context, as_json: Json = False) -> None:
    """Show health, models and the rung that computes each. Exit code 5 when nothing runs."""
    found = _ask(context, "GET", "/v2/prime-spark/edge")
    if as_json:
        say_json(found)
        return
    say(f"edge runtime {found['status']}, {found['in_progress']} requests in progress")
    for reason in found["reasons"]:
        say(f"  {reason}")
    if found["models"]:
        say()
        headings = ["model", "version", "computed by", "ms a row", "answered", "refused", "failed"]
        table(headings, [_row(model) for model in found["models"]])


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Check this box: accelerator, board, runtime; say what to do. Exit code 1 for a problem."""
    from cluster.home import Home
    from edge_runtime.doctor import Subject, examine, this_box
    from edge_runtime.local_client import ask

    settings = invocation(context).settings()
    # Not `Home.at`, which makes it: a checklist changes nothing, and works without the right to.
    home = Home.of(settings.home)
    socket = home.edge_run / "edge.sock"
    subject = Subject(
        settings.edge.accelerator, home.root, lambda: ask(socket, "GET", "/v2/prime-spark/edge")
    )
    report = examine(this_box(os.environ), subject)
    if as_json:
        say_json(report.document())
    else:
        table(["", "check", "found"], report.rows())
    if not report.is_good:
        raise typer.Exit(1)


def bench(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A loaded model.")],
    clients: Annotated[
        list[int] | None, typer.Option(help="Callers at once; repeat for several runs.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long each run takes.")] = 5.0,
    version: Annotated[str | None, typer.Option(help="The newest loaded if unset.")] = None,
    as_json: Json = False,
) -> None:
    """Measure how fast this box answers a model, over its Unix socket, with zeros as input."""
    import asyncio
    from dataclasses import asdict

    from edge_runtime.bench import bench as measure
    from edge_runtime.bench import sample_request

    counts = clients or [1, 4, 16]
    if seconds <= 0 or min(counts) < 1:
        raise InvalidInput("seconds and clients must be more than 0", field="--seconds")
    run_folder = invocation(context).home().edge_run
    request = sample_request(run_folder / "edge.sock", model, version)
    results = []
    for count in counts:
        sys.stderr.write(f"{count} clients, {seconds:g} s\n")
        found = asyncio.run(
            measure(run_folder / "edge-grpc.sock", request, clients=count, seconds=seconds)
        )
        results.append(asdict(found))
    if as_json:
        say_json({"model": model, "runs": results})
        return
    table(
        ["clients", "answers/s", "p50 ms", "p90 ms", "p99 ms", "failed", "computed by"],
        [
            [
                str(r["clients"]),
                f"{r['per_s']:.0f}",
                *(f"{r[name]:.2f}" for name in ("p50_ms", "p90_ms", "p99_ms")),
                str(r["failures"]),
                ", ".join(f"{name} {count}" for name, count in r["rungs"].items()),
            ]
            for r in results
        ],
    )


def drain(
    context: typer.Context,
    wait_s: Annotated[float, typer.Option(help="How long to wait for requests to end.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Take no new requests and wait until those in progress have ended; `resume` ends it."""
    until = time.monotonic() + wait_s
    found = _ask(context, "POST", "/v2/prime-spark/drain")
    while found["in_progress"] and time.monotonic() < until:
        time.sleep(0.1)
        overview = _ask(context, "GET", "/v2/prime-spark/edge")
        found = {"draining": True, "in_progress": overview["in_progress"]}
    if as_json:
        say_json(found)
    else:
        left = found["in_progress"]
        say(f"still {left} requests in progress" if left else "drained")
    if found["in_progress"]:
        raise typer.Exit(1)


def resume(context: typer.Context, as_json: Json = False) -> None:
    """Take requests again after `drain`."""
    found = _ask(context, "POST", "/v2/prime-spark/resume")
    if as_json:
        say_json(found)
    else:
        say("taking requests")


def list_models(context: typer.Context, as_json: Json = False) -> None:
    """List the packages on this box, whether or not the runtime runs."""
    packages, problems = _folder(context).scan()
    rows: list[dict[str, Any]] = [
        {
            "model": package.manifest.model,
            "version": package.manifest.version,
            "artifacts": [
                entry.format + (f"/{entry.target}" if entry.target else "")
                for entry in package.manifest.artifacts
            ],
            "size_bytes": sum(entry.size_bytes for entry in package.manifest.artifacts),
        }
        for package in packages
    ]
    if as_json:
        say_json({"packages": rows, "problems": problems})
        return
    table(
        ["model", "version", "artifacts", "size_bytes"],
        [[r["model"], r["version"], ",".join(r["artifacts"]), str(r["size_bytes"])] for r in rows],
    )
    for problem in problems:
        sys.stderr.write(f"{problem}\n")


def add_model(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[str, typer.Argument(help="The new version's name; it can never change.")],
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help=HELP),
    ],
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="How it is served: max_batch_size, max_queue ..."),
    ] = None,
) -> None:
    """Install a model package; a running runtime loads it at once."""
    from edge_runtime.local_client import NotRunning
    from edge_runtime.packages import Incoming

    _folder(context).install(
        model,
        version,
        [Incoming(f.format, f.path, f.target) for f in map(read_file, files)],
        options=pairs(option or [], "--option"),
        installed_at=time.time(),
    )
    say(f"installed {model}:{version}")
    try:
        _ask(context, "POST", "/v2/prime-spark/rescan")
        _ask_to("load", context, model, version)
    except NotRunning:
        _state(context).decide(model, version, True)
        sys.stderr.write("no runtime runs now; it will be loaded when one starts\n")
    else:
        say(f"{model}:{version} is being served")


def remove_model(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str, typer.Argument(help="The version.")],
) -> None:
    """Unload a version, after what it accepted is finished, and remove its files."""
    from edge_runtime.local_client import NotRunning

    is_running = True
    try:
        _ask_to("unload", context, model, version)
    except NotRunning:
        is_running = False
    except NotFound:
        pass  # one that it could not read
    _folder(context).remove(model, version)
    if is_running:
        _ask(context, "POST", "/v2/prime-spark/rescan")
    else:
        _state(context).forget(model, version)
    say(f"removed {model}:{version}")


def _api_keys(home: Home) -> ApiKeys | None:
    """Open the store of API keys where there is one: SQLite takes a megabyte."""
    if not home.api_keys.exists():
        return None
    from cluster.identity.apikeys import ApiKeyStore

    return ApiKeyStore(home.api_keys)


def _row(model: dict[str, Any]) -> list[str]:
    rung = next((r for r in model["rungs"] if r["name"] == model["rung"]), None)
    return [
        model["model"],
        model["version"],
        model["rung"] or "nothing",
        f"{rung['row_ms']:.3f}" if rung else "",
        str(model["answered"]),
        str(model["refused"]),
        str(model["failed"]),
    ]


def _places(home: Home, settings: Settings) -> Places:
    from edge_runtime.app import Places

    return Places(
        models=settings.edge.models.folder or home.edge / "models",
        state=home.edge / "state",
        run=home.edge_run,
    )


def _folder(context: typer.Context) -> PackageFolder:
    from edge_runtime.packages import PackageFolder

    settings = invocation(context).settings()
    return PackageFolder(settings.edge.models.folder or invocation(context).home().edge / "models")


def _state(context: typer.Context) -> ServingState:
    from edge_runtime.serving_state import ServingState

    return ServingState(invocation(context).home().edge / "state" / "serving.json")


def _ask(
    context: typer.Context, method: str, route: str, body: object = None, timeout_s: float = 10.0
) -> Any:
    from edge_runtime.local_client import ask

    socket = invocation(context).home().edge_run / "edge.sock"
    return ask(socket, method, route, body, timeout_s=timeout_s)


def _ask_to(what: str, context: typer.Context, model: str, version: str) -> None:
    """Have a version loaded or unloaded; the runtime gives up before we do."""
    from urllib.parse import quote

    settings = invocation(context).settings()
    longest_s = max(settings.limits.default_timeout_s, settings.edge.drain_s) + 10.0
    route = f"/v2/repository/models/{quote(model, safe='')}/{what}"
    _ask(context, "POST", route, {"parameters": {"version": version}}, longest_s)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("prime-spark")
    except PackageNotFoundError:
        return "0"
