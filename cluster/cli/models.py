"""`model`: the registry and the serving table from the command line."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.artifacts import HELP, read_file
from cluster.cli.context import actor, invocation, pairs, say, say_json, table
from cluster.cli.life import Json
from edge_runtime.errors import InvalidInput, PrimeSparkError

if TYPE_CHECKING:
    from cluster.registry import EmbeddedRegistry, ModelVersion

Ref = Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", help="A version or an alias.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    model = typer.Typer(help="Models: register versions, move aliases, serve them.")
    model.command("list")(list_models)
    model.command("show")(show)
    model.command("register")(register)
    model.command("serve")(serve)
    model.command("unserve")(unserve)
    model.command("alias")(alias)
    model.command("history")(history)
    app.add_typer(model, name="model", no_args_is_help=True)


def list_models(context: typer.Context, as_json: Json = False) -> None:
    """List every version, its aliases, and where it is served."""
    registry = _registry(context)
    _, entries = registry.serving()
    served = {(e.model, e.version): ",".join(sorted(e.placements)) for e in entries}
    rows: list[dict[str, str]] = []
    for model in registry.models():
        aliases = registry.aliases(model)
        for version in registry.versions(model):
            named = sorted(name for name, target in aliases.items() if target == version.version)
            rows.append(
                {
                    "model": model,
                    "version": version.version,
                    "aliases": ",".join(named),
                    "served": served.get((model, version.version), ""),
                    "formats": ",".join(artifact.format for artifact in version.artifacts),
                    "size_bytes": str(sum(artifact.size_bytes for artifact in version.artifacts)),
                }
            )
    if as_json:
        say_json([{**row, "size_bytes": int(row["size_bytes"])} for row in rows])
    else:
        headings = ["model", "version", "aliases", "served", "formats", "size_bytes"]
        table(headings, [[row[heading] for heading in headings] for row in rows])


def show(context: typer.Context, ref: Ref, as_json: Json = False) -> None:
    """Show a version: signature, artifacts, card."""
    version = _resolve(_registry(context), ref)
    if as_json:
        say_json(asdict(version))
        return
    say(f"{version.model}:{version.version}  {version.digest}")
    when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(version.created_at))
    say(f"registered {when} by {version.created_by}")
    if version.card.description:
        say(version.card.description)
    for side, specs in (("input", version.signature.inputs), ("output", version.signature.outputs)):
        for spec in specs:
            say(f"  {side:8} {spec.name}  {spec.datatype} {list(spec.shape)}")
    for artifact in version.artifacts:
        say(f"  {artifact.format:8} {artifact.digest}  {artifact.size_bytes} bytes")
    for name, value in version.card.metrics.items():
        say(f"  metric   {name} = {value:g}")
    if version.card.dataset:
        say(f"  dataset  {version.card.dataset}")
    for note in version.card.notes:
        say(f"  note     {note}")


def register(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[str, typer.Argument(help="The new version's name; it can never change.")],
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help=HELP)],
    description: Annotated[str, typer.Option(help="One sentence for the model card.")] = "",
    metric: Annotated[
        list[str] | None, typer.Option(metavar="NAME=NUMBER", help="A metric for the card.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set name and version.")] = None,
    note: Annotated[list[str] | None, typer.Option(help="What a user has to know.")] = None,
) -> None:
    """Register a version; its inputs and outputs are read from the first ONNX file."""
    from cluster.registry import ArtifactFile, ModelCard
    from edge_runtime.backends.base import BackendOptions
    from edge_runtime.backends.onnx import load_onnx

    named = [read_file(text) for text in files]
    readable = next((each for each in named if each.format.startswith("onnx")), None)
    if readable is None:
        raise InvalidInput("one of the files has to be ONNX", field="file")
    backend = load_onnx(readable.path, BackendOptions())
    signature = backend.signature
    backend.close()
    metrics = {key: _number(key, value) for key, value in pairs(metric or [], "--metric").items()}
    made = _registry(context).register(
        model,
        version,
        signature=signature,
        artifacts=[ArtifactFile(each.format, each.path, each.target) for each in named],
        card=ModelCard(description, metrics, dataset, tuple(note or ())),
        actor=actor(),
    )
    say(f"registered {made.model}:{made.version}  {made.digest}")


def serve(
    context: typer.Context,
    ref: Ref,
    placement: Annotated[
        str, typer.Option(help="Where: one or more of colocated, cloud, edge; comma-separated.")
    ] = "cloud,edge",
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="How: max_batch_size, max_delay_ms, max_queue ..."),
    ] = None,
    canary: Annotated[
        float | None,
        typer.Option(
            min=0, max=100, metavar="PERCENT", help="Of requests that name no version, so many."
        ),
    ] = None,
    shadow: Annotated[
        float | None,
        typer.Option(
            min=0, max=100, metavar="PERCENT", help="Copies of so many, whose answers nobody gets."
        ),
    ] = None,
    wait_s: Annotated[float, typer.Option(help="How long to wait until it is loaded.")] = 60.0,
) -> None:
    """Serve a version, and wait until every place has loaded it."""
    from cluster.registry import ServingEntry
    from edge_runtime.engine import ModelOptions, model_options
    from policies.routing.splits import CANARY, SHADOW, of_engine

    registry = _registry(context)
    version = _resolve(registry, ref)
    options = dict(pairs(option or [], "--option"))
    shares = {CANARY: canary, SHADOW: shadow}
    options |= {name: percent for name, percent in shares.items() if percent is not None}
    model_options(ModelOptions(), of_engine(options))
    placements = frozenset(part.strip() for part in placement.split(",") if part.strip())
    registry.serve(
        ServingEntry(version.model, version.version, placements, options, actor(), time.time())
    )
    _await_loaded(context, version, placements, wait_s)


def unserve(context: typer.Context, ref: Ref) -> None:
    """Stop serving a version; accepted requests are finished."""
    registry = _registry(context)
    version = _resolve(registry, ref)
    registry.stop_serving(version.model, version.version, actor=actor())
    say(f"{version.model}:{version.version} is no longer served")


def alias(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model.")],
    name: Annotated[str, typer.Argument(help="The alias, such as production.")],
    version: Annotated[
        str | None, typer.Argument(help="The version; leave out with --remove.")
    ] = None,
    expected: Annotated[
        str | None, typer.Option(help="Move it only from here (default: from where it is now).")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias.")] = False,
) -> None:
    """Move an alias to a version, by compare-and-set."""
    if (version is None) != remove:
        raise InvalidInput("give a version, or --remove", field="version")
    registry = _registry(context)
    seen = expected if expected is not None else registry.aliases(model).get(name)
    registry.set_alias(model, name, version, expected=seen, actor=actor())
    say(f"{model}@{name}: {seen or 'nothing'} -> {version or 'nothing'}")


def history(
    context: typer.Context, model: Annotated[str, typer.Argument()], as_json: Json = False
) -> None:
    """Show who did what to a model."""
    events = _registry(context).history(model)
    if as_json:
        say_json([{**asdict(event), "action": event.action.value} for event in events])
        return
    rows = [
        [
            time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(event.at)),
            event.actor,
            event.action.value,
            event.version,
            f"{event.alias} (was {event.previous or 'nothing'})" if event.alias else "",
        ]
        for event in events
    ]
    table(["when", "who", "what", "version", "alias"], rows)


def _registry(context: typer.Context) -> EmbeddedRegistry:
    from cluster.registry import EmbeddedRegistry

    return EmbeddedRegistry(invocation(context).home().registry)


def _resolve(registry: EmbeddedRegistry, ref: str) -> ModelVersion:
    model, _, version = ref.partition("@")
    return registry.resolve(model, version or None)


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"metric '{key}' must be a number", field="--metric")
    return float(value)


def _await_loaded(
    context: typer.Context, version: ModelVersion, placements: frozenset[str], wait_s: float
) -> None:
    from cluster.status import read_targets

    settings = invocation(context).settings()
    name = f"{version.model}:{version.version}"
    until = time.monotonic() + wait_s
    while True:
        try:
            targets = read_targets(settings)
        except PrimeSparkError:
            sys.stderr.write("no gateway runs now; it will be served when one does\n")
            return
        asleep = [t["name"] for t in targets if t["tier"] in placements and t["state"] == "asleep"]
        wanted = [
            t for t in targets if t["tier"] in placements and t["state"] not in {"down", "asleep"}
        ]
        for target in wanted:
            for failure in target["failures"]:
                if (failure["model"], failure["version"]) == (version.model, version.version):
                    raise InvalidInput(f"{target['name']} cannot load {name}: {failure['why']}")
        missing = [t["name"] for t in wanted if not _has(t, version)]
        if (wanted or asleep) and not missing:
            if wanted:
                say(f"{name} is served by {', '.join(t['name'] for t in wanted)}")
            if asleep:
                say(f"{', '.join(asleep)} sleeps, and loads it when a request needs it")
            return
        if time.monotonic() > until:
            where = ", ".join(missing) or "any target"
            raise PrimeSparkError(
                f"{name} was not loaded within {wait_s:g} s by {where}",
                hint="`prime-spark status` shows the targets",
            )
        time.sleep(0.1)


def _has(target: dict[str, object], version: ModelVersion) -> bool:
    loaded = target["models"]
    return isinstance(loaded, list) and any(
        (entry["model"], entry["version"], entry["replicas"])
        == (version.model, version.version, target["replicas"])
        for entry in loaded
    )
