"""Make a model of the zoo and put it into the registry as `production`.

    python -m train.zoo.publish {digits|mlp|resnet18} [--home HOME] [--force-train] [--json]

A plain program without Ray, so it runs the same by hand and as a job of the cluster:

    ray job submit --working-dir . -- python -m train.zoo.publish digits --home HOME

A version is named by what it is made from (`recipe`). If that version is registered already it
is verified and reused, which takes no torch and no training.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from cluster.config import load_settings
from cluster.home import Home
from cluster.registry import (
    PRODUCTION,
    ArtifactFile,
    EmbeddedRegistry,
    ModelCard,
    ModelVersion,
    Registry,
)
from edge_runtime.errors import Conflict, NotFound, PrimeSparkError
from train.zoo import digits
from train.zoo.recipe import Provenance, provenance

if TYPE_CHECKING:
    from train.zoo.export import Built  # needs torch

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the zoo. sources: the modules that shape it."""

    description: str
    sources: tuple[str, ...]
    is_trained: bool = True
    notes: tuple[str, ...] = ()


ZOO: Final[Mapping[str, Entry]] = {
    "digits": Entry(
        "Handwritten digits of 8 x 8 pixels, a small convolutional network",
        sources=("cnn.py", "digits.py", "fit.py", "export.py"),
    ),
    "mlp": Entry(
        "Handwritten digits as 64 features, a perceptron 64-256-256-10",
        sources=("mlp.py", "digits.py", "fit.py", "export.py"),
        notes=("for benchmarks: computing takes microseconds",),
    ),
    "resnet18": Entry(
        "A network in the shape of ResNet-18 for images of 224 x 224",
        sources=("resnet.py", "fit.py", "export.py"),
        is_trained=False,
        notes=("latency only: random weights",),
    ),
}


@dataclass(frozen=True, slots=True)
class Published:
    """What was done. digest: of the version; previous: where `production` pointed before."""

    model: str
    version: str
    digest: str
    artifact: str
    size_bytes: int
    metrics: Mapping[str, float]
    is_new: bool
    previous: str | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish one model; 0 when it is there and `production` points to it."""
    parser = argparse.ArgumentParser(
        prog="train.zoo.publish", description="Train, export and register a model of the zoo."
    )
    parser.add_argument("model", choices=list(ZOO))
    parser.add_argument("--home", help="default: the configured home (PRIME_SPARK_HOME)")
    parser.add_argument(
        "--force-train", action="store_true", help="train although the version is registered"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    chosen = parser.parse_args(arguments)

    console = Console(stderr=chosen.json, highlight=False)
    began = time.monotonic()
    try:
        home = Home.at(chosen.home or load_settings(env=os.environ).home)
        # torch makes this folder when it is imported, otherwise below /tmp and for good
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home.cache / "torchinductor"))
        registry = EmbeddedRegistry(home.registry)
        with _shown(console, chosen.model) as progress:
            done = publish(
                chosen.model,
                home.root,
                registry,
                actor=_actor(),
                force=chosen.force_train,
                progress=progress,
            )
    except PrimeSparkError as error:
        console.print(f"[red]{chosen.model} was not published:[/] {error.message}")
        if error.hint:
            console.print(f"  {error.hint}")
        return 1
    if chosen.json:
        sys.stdout.write(json.dumps(asdict(done)) + "\n")
    else:
        _report(console, done, chosen.force_train, time.monotonic() - began)
    return 0


def publish(
    model: str, root: Path, registry: Registry, *, actor: str, force: bool, progress: Progress
) -> Published:
    """Register a model of the zoo unless it is there, and point `production` to it.

    root: the home's folder, where data sets are. Raises Conflict when somebody else moves the
    alias meanwhile, Corrupt for a damaged data set or artifact, `export.Unfit` when the model
    is not good enough.
    """
    entry = ZOO[model]
    origin = provenance(entry.sources, digits.DIGEST if entry.is_trained else None)
    found = None if force else _registered(registry, model, origin)
    is_new = False
    if found is None:
        found, is_new = _make_and_register(model, entry, origin, root, registry, actor, progress)
    registry.artifact_path(found.artifacts[0], verify=True)
    return Published(
        model=model,
        version=found.version,
        digest=found.digest,
        artifact=found.artifacts[0].digest,
        size_bytes=found.artifacts[0].size_bytes,
        metrics=found.card.metrics,
        is_new=is_new,
        previous=_point(registry, found, actor),
    )


def _registered(registry: Registry, model: str, origin: Provenance) -> ModelVersion | None:
    try:
        found = registry.get(model, origin.version)
    except NotFound:
        return None
    return found if found.card.provenance.get("recipe_sha256") == origin.digest else None


def _make_and_register(
    model: str,
    entry: Entry,
    origin: Provenance,
    root: Path,
    registry: Registry,
    actor: str,
    progress: Progress,
) -> tuple[ModelVersion, bool]:
    """Build a model and register it; False when the same version was there already.

    Where training on this machine gives other bytes than those registered under the recipe's
    name, the artifact's digest is appended to the name.
    """
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        path = Path(folder) / "model.onnx"
        built = _build(model, root, path, progress)
        card = ModelCard(
            description=entry.description,
            metrics=built.metrics,
            dataset=digits.NAME if entry.is_trained else None,
            notes=entry.notes,
            provenance=origin.as_card(),
        )
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        for version in (origin.version, f"{origin.version}-{content[:8]}"):
            try:
                registered = registry.register(
                    model,
                    version,
                    signature=built.signature,
                    artifacts=(ArtifactFile("onnx", path),),
                    card=card,
                    actor=actor,
                )
            except Conflict as conflict:
                if conflict.details.get("identical"):
                    return registry.get(model, version), False
            else:
                return registered, True
    raise Conflict(f"{model}:{version} is registered with another content")


def _build(model: str, root: Path, path: Path, progress: Progress) -> Built:
    match model:
        case "digits":
            from train.zoo import cnn

            return cnn.build(digits.load(root), path, progress)
        case "mlp":
            from train.zoo import mlp

            return mlp.build(digits.load(root), path, progress)
        case _:
            from train.zoo import resnet

            return resnet.build(path)


def _point(registry: Registry, found: ModelVersion, actor: str) -> str | None:
    """Move `production` to a version; return where it pointed before."""
    before = registry.aliases(found.model).get(PRODUCTION)
    if before != found.version:
        try:
            registry.set_alias(found.model, PRODUCTION, found.version, expected=before, actor=actor)
        except Conflict as conflict:
            if conflict.details.get("actual") != found.version:
                raise
    return before


@contextmanager
def _shown(console: Console, model: str) -> Iterator[Progress]:
    """Show a bar while a model trains, where somebody is watching."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"training {model}", visible=False)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield progress


def _report(console: Console, done: Published, is_forced: bool, taken_s: float) -> None:
    how = "made and registered"
    if not done.is_new:
        how = "came out just as registered" if is_forced else "was registered already"
    console.print(f"{done.model}:{done.version} {how}, {taken_s:.1f} s")
    metrics = ", ".join(f"{name} {value:.6g}" for name, value in done.metrics.items())
    console.print(f"  {metrics}")
    size_mb = done.size_bytes / 1e6
    console.print(f"  onnx {size_mb:.1f} MB, sha256 {done.artifact}", soft_wrap=True)
    if done.previous == done.version:
        console.print(f"  {PRODUCTION} points to it, as before")
    else:
        console.print(f"  {PRODUCTION} points to it, before: {done.previous or 'nothing'}")


def _actor() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in some containers
        return f"uid-{os.getuid()}"


if __name__ == "__main__":
    sys.exit(main())
