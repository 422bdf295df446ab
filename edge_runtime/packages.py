"""Model packages on disk: what an edge box has, with or without a network.

    models/MODEL/VERSION/package.json     what it is: artifacts with digests, options
    models/MODEL/VERSION/onnx.onnx ...    its artifacts

A package appears by one rename and never changes; a changed file is noticed by its digest when it
is loaded. A folder that is no package is reported and left alone, never deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from edge_runtime import durable
from edge_runtime.engine import ModelOptions, ModelSource, Variant, model_options
from edge_runtime.errors import Conflict, Corrupt, InvalidInput, NotFound, Unavailable
from edge_runtime.protocol.types import ParameterValue, Signature

MANIFEST: Final = "package.json"
FORMAT: Final = 1
_NAME: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_SUFFIXES: Final = {"onnx": ".onnx", "onnx-int8": ".onnx", "hef": ".hef"}
_STAGED: Final = ".staged-"


@dataclass(frozen=True, slots=True)
class ArtifactEntry:
    """One file of a package. digest: SHA-256 in hex; target: hardware that it is compiled for."""

    format: str
    file: str
    digest: str
    size_bytes: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of `package.json`. format: of this document."""

    format: int
    model: str
    version: str
    artifacts: tuple[ArtifactEntry, ...]
    options: Mapping[str, ParameterValue] = field(default_factory=dict)
    signature: Signature | None = None
    installed_at: float = 0.0


_MANIFEST: Final = TypeAdapter(Manifest)


@dataclass(frozen=True, slots=True)
class Package:
    """An installed version and the folder that it is in."""

    manifest: Manifest
    folder: Path

    @property
    def key(self) -> tuple[str, str]:
        return self.manifest.model, self.manifest.version

    def source(self, defaults: ModelOptions) -> ModelSource:
        """Return what an engine loads. Raises InvalidInput for an option there is not."""
        variants = tuple(
            Variant(entry.format, self.folder / entry.file, entry.target, entry.digest)
            for entry in self.manifest.artifacts
        )
        options = model_options(defaults, self.manifest.options)
        model, version = self.key
        return ModelSource(model, version, variants, options, self.manifest.signature)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A file that is to become an artifact of a package. digest: checked when it is given."""

    format: str
    path: Path
    target: str = ""
    digest: str = ""


class PackageFolder:
    """The packages below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def scan(self) -> tuple[list[Package], list[str]]:
        """Return the packages, oldest first, and what is wrong with others, a sentence each."""
        found: list[Package] = []
        problems: list[str] = []
        try:
            folders = [
                version
                for model in sorted(self.root.iterdir())
                if model.is_dir() and not model.name.startswith(".")
                for version in sorted(model.iterdir())
                if version.is_dir() and not version.name.startswith(".")
            ]
        except FileNotFoundError:
            return [], []
        except OSError as error:
            return [], [f"the models folder cannot be read: {error.strerror}"]
        for folder in folders:
            try:
                found.append(read_package(folder))
            except Corrupt as error:
                problems.append(error.message)
        found.sort(key=lambda package: (package.manifest.installed_at, package.key))
        return found, problems

    def install(
        self,
        model: str,
        version: str,
        files: Sequence[Incoming],
        *,
        options: Mapping[str, ParameterValue] | None = None,
        signature: Signature | None = None,
        installed_at: float,
    ) -> Package:
        """Copy files in and make the version visible in one step.

        The same content again is no change. Raises InvalidInput, Conflict when the version is
        there with another content, Corrupt when a file is not what its digest says, Unavailable
        when the disk does not take it.
        """
        _check_names(model, version, files)
        model_options(ModelOptions(), options or {})
        folder = self.root / model / version
        staged = self.root / model / f"{_STAGED}{uuid.uuid4().hex}"
        try:
            staged.mkdir(parents=True)
            entries = tuple(_copy_in(incoming, staged) for incoming in files)
            manifest = Manifest(
                FORMAT, model, version, entries, dict(options or {}), signature, installed_at
            )
            durable.write(staged / MANIFEST, _MANIFEST.dump_json(manifest, indent=1))
            if (known := self._known(folder)) is not None:
                if known.manifest.artifacts == entries and known.manifest.options == (
                    options or {}
                ):
                    return known
                raise Conflict(
                    f"{model}:{version} is installed with another content",
                    field="version",
                    hint="a version never changes; install it under a new one",
                )
            staged.rename(folder)
            durable.flush_folder(folder.parent)
            durable.flush_folder(self.root)
        except OSError as error:
            raise Unavailable(
                f"{model}:{version} cannot be installed: {error.strerror}",
                hint=f"make room on the disk of {self.root}",
            ) from None
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return Package(manifest, folder)

    def remove(self, model: str, version: str) -> None:
        """Remove a version. Raises NotFound, Unavailable."""
        _check_name("model", model)
        _check_name("version", version)
        folder = self.root / model / version
        gone = folder.with_name(f"{_STAGED}{uuid.uuid4().hex}")
        try:
            folder.rename(gone)
            durable.flush_folder(folder.parent)
            shutil.rmtree(gone)
            with contextlib.suppress(OSError):  # other versions are left in it
                folder.parent.rmdir()
        except FileNotFoundError:
            raise NotFound(f"{model}:{version} is not installed", field="version") from None
        except OSError as error:
            raise Unavailable(f"{model}:{version} cannot be removed: {error.strerror}") from None

    def sweep(self) -> None:
        """Remove what an install or a removal that was interrupted left behind."""
        for staged in self.root.glob(f"*/{_STAGED}*"):
            shutil.rmtree(staged, ignore_errors=True)

    def _known(self, folder: Path) -> Package | None:
        return read_package(folder) if folder.exists() else None


def read_package(folder: Path) -> Package:
    """Read a package's manifest. Raises Corrupt."""
    name = f"{folder.parent.name}/{folder.name}"
    try:
        document: Any = json.loads((folder / MANIFEST).read_bytes())
        manifest = _MANIFEST.validate_python(document)
    except FileNotFoundError:
        raise Corrupt(f"{name} is not a model package: it has no {MANIFEST}") from None
    except OSError as error:
        raise Corrupt(f"{name}/{MANIFEST} cannot be read: {error.strerror}") from None
    except (ValueError, ValidationError, RecursionError):
        raise Corrupt(f"{name}/{MANIFEST} is damaged") from None
    if (manifest.model, manifest.version) != (folder.parent.name, folder.name):
        raise Corrupt(f"{name}/{MANIFEST} belongs to {manifest.model}:{manifest.version}")
    if manifest.format != FORMAT:
        raise Corrupt(f"{name}/{MANIFEST} is of format {manifest.format}; this is for {FORMAT}")
    for entry in manifest.artifacts:
        if Path(entry.file).name != entry.file:
            raise Corrupt(f"{name}/{MANIFEST} names a file outside of the package")
    return Package(manifest, folder)


def _copy_in(incoming: Incoming, folder: Path) -> ArtifactEntry:
    suffix = _SUFFIXES[incoming.format]
    name = (
        f"{incoming.format}-{incoming.target}{suffix}"
        if incoming.target
        else (f"{incoming.format}{suffix}")
    )
    digest = hashlib.sha256()
    size = 0
    with incoming.path.open("rb") as source, (folder / name).open("xb") as target:
        while block := source.read(1 << 20):
            digest.update(block)
            size += target.write(block)
        target.flush()
        os.fsync(target.fileno())
    found = digest.hexdigest()
    if incoming.digest and found != incoming.digest:
        raise Corrupt(f"{incoming.path.name} is not what was sent (SHA-256 differs)")
    return ArtifactEntry(incoming.format, name, found, size, incoming.target)


def _check_names(model: str, version: str, files: Iterable[Incoming]) -> None:
    _check_name("model", model)
    _check_name("version", version)
    kinds = [(incoming.format, incoming.target) for incoming in files]
    if not kinds:
        raise InvalidInput("a package needs at least one artifact", field="artifacts")
    if len(set(kinds)) != len(kinds):
        raise InvalidInput("two artifacts have the same format and target", field="artifacts")
    for kind, target in kinds:
        if kind not in _SUFFIXES:
            raise InvalidInput(
                f"unknown artifact format '{kind[:64]}'",
                field="artifacts",
                hint="one of " + ", ".join(_SUFFIXES),
            )
        if target:
            _check_name("target", target)


def _check_name(what: str, text: str) -> None:
    if not _NAME.fullmatch(text):
        raise InvalidInput(
            f"{text[:160]!r} is not a name for a {what}",
            field=what,
            hint="letters, digits and ._- only, not beginning with . or -, at most 128",
        )
