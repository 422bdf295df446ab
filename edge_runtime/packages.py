"""Model packages on disk: what an edge box has, with or without a network.

    models/MODEL/VERSION/package.json     what it is: artifacts with digests, options
    models/MODEL/VERSION/onnx.onnx ...    its artifacts

A package appears by one rename and never changes; a changed file is noticed by its digest when it
is loaded. A folder that is no package is reported and left alone, never deleted. What is being
installed is held by a lock (flock on its folder), which the kernel drops when the process dies:
so the leftovers of the dead are told from the work of the living.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from edge_runtime import durable
from edge_runtime.engine import ModelOptions, ModelSource, Variant, model_options
from edge_runtime.errors import Conflict, Corrupt, InvalidInput, NotFound, Unavailable
from edge_runtime.protocol.types import ParameterValue, Signature

logger = logging.getLogger(__name__)

MANIFEST: Final = "package.json"
FORMAT: Final = 1
_NAME: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_SUFFIXES: Final = {"onnx": ".onnx", "onnx-int8": ".onnx", "hef": ".hef"}
_STAGED: Final = ".staged-"
_NO_MODEL: Final = "lost+found"  # of a file system that is mounted here


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
    """The content of `package.json`. format: of this document; origin: who put it here, empty for
    somebody on this box.
    """

    format: int
    model: str
    version: str
    artifacts: tuple[ArtifactEntry, ...]
    options: Mapping[str, ParameterValue] = field(default_factory=dict)
    signature: Signature | None = None
    installed_at: float = 0.0
    origin: str = ""


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


class _RemovedMeanwhile(Exception):
    """A version was removed while damaged files of it were replaced."""


class PackageFolder:
    """The packages below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def scan(self) -> tuple[list[Package], list[str]]:
        """Return the packages, oldest first, and what is wrong with others, a sentence each."""
        found: list[Package] = []
        problems: list[str] = []
        for model in _folders(self.root, problems):
            if model.name == _NO_MODEL:
                continue
            for folder in _folders(model, problems):
                try:
                    found.append(read_package(folder))
                except NotFound:
                    continue  # it is being removed
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
        origin: str = "",
        installed_at: float,
    ) -> Package:
        """Copy files in and make the version visible in one step.

        The same files again replace those that were damaged since, and otherwise are no change; how
        they are served may change. Raises InvalidInput,
        Conflict when the version is there with other files, Corrupt when a file is not what its
        digest says, Unavailable when the disk does not take it.
        """
        _check_names(model, version, files)
        model_options(ModelOptions(), options or {})
        folder = self.root / model / version
        try:
            with self._staging(model) as staged:
                entries = tuple(_copy_in(incoming, staged) for incoming in files)
                manifest = Manifest(
                    FORMAT,
                    model,
                    version,
                    entries,
                    dict(options or {}),
                    signature,
                    self._newest(model, installed_at),
                    origin,
                )
                durable.write(staged / MANIFEST, _MANIFEST.dump_json(manifest, indent=1))
                while not _rename(staged, folder):
                    with contextlib.suppress(NotFound):  # it was removed in this moment
                        return self._install_again(read_package(folder), manifest, staged)
                durable.flush_folder(folder.parent)
        except _RemovedMeanwhile:  # with what was put into it
            return self.install(
                model,
                version,
                files,
                options=options,
                signature=signature,
                origin=origin,
                installed_at=installed_at,
            )
        except OSError as error:
            raise self._failed(f"{model}:{version} cannot be installed", error) from None
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
            _delete(gone)
            with contextlib.suppress(OSError):  # other versions are left in it
                folder.parent.rmdir()
        except FileNotFoundError:
            raise NotFound(f"{model}:{version} is not installed", field="version") from None
        except OSError as error:
            raise self._failed(f"{model}:{version} cannot be removed", error) from None

    def has(self, model: str, version: str) -> bool:
        """Tell whether there is a folder of this version, be it damaged."""
        return (self.root / model / version).is_dir()

    def sweep(self) -> None:
        """Remove what an install or a removal that was interrupted left behind."""
        for staged in self.root.glob(f"*/{_STAGED}*"):
            with contextlib.suppress(OSError), _locked(staged) as is_ours:
                if is_ours:
                    _delete(staged)
                    staged.parent.rmdir()  # fails while a version is in it

    @contextlib.contextmanager
    def _staging(self, model: str) -> Iterator[Path]:
        """Make a folder that a sweep leaves alone; what is left of it is gone afterwards."""
        parent = self.root / model
        while True:
            staged = parent / f"{_STAGED}{uuid.uuid4().hex}"
            try:
                durable.make_folder(parent)
                staged.mkdir()
            except FileNotFoundError:  # the model's last version was removed in this moment
                continue
            with _locked(staged) as is_ours:
                if not is_ours:  # a sweep was faster
                    continue
                try:
                    yield staged
                finally:
                    shutil.rmtree(staged, ignore_errors=True)
                    with contextlib.suppress(OSError):  # a version is in it
                        parent.rmdir()
                return

    def _newest(self, model: str, now: float) -> float:
        """Return a time of installation after that of every version there is, whatever the clock.

        A box without a battery for its clock begins in 1970 after each power cut.
        """
        before = 0.0
        for folder in _folders(self.root / model, []):
            with contextlib.suppress(NotFound, Corrupt):
                before = max(before, read_package(folder).manifest.installed_at)
        return max(now, math.nextafter(before, math.inf))

    def _failed(self, what: str, error: OSError) -> Unavailable:
        hint = None
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = f"make room on the disk of {self.root}"
        elif error.filename:
            hint = _shown(f"look at {os.fsdecode(error.filename)}")
        return Unavailable(f"{what}: {error.strerror}", hint=hint)

    def _install_again(self, known: Package, wanted: Manifest, staged: Path) -> Package:
        """Replace damaged files and the options of a version. Raises Conflict for other files."""
        if set(known.manifest.artifacts) != set(wanted.artifacts):
            raise Conflict(
                f"{wanted.model}:{wanted.version} is installed with another content",
                field="version",
                hint="a version never changes; install it under a new one",
            )
        try:
            for entry in known.manifest.artifacts:
                _mend(known.folder / entry.file, staged / entry.file, entry)
            if known.manifest.options == wanted.options:
                return known
            changed = replace(known.manifest, options=wanted.options)
            durable.write(known.folder / MANIFEST, _MANIFEST.dump_json(changed, indent=1))
        except FileNotFoundError:
            if known.folder.exists():
                raise
            raise _RemovedMeanwhile from None
        return Package(changed, known.folder)


def _mend(path: Path, whole: Path, entry: ArtifactEntry) -> None:
    """Put a whole file in the place of a damaged or a missing one."""
    try:
        Variant(entry.format, path, entry.target, entry.digest).verify()
    except Corrupt as error:
        logger.warning(
            "%s/%s: %s; replaced", path.parent.parent.name, path.parent.name, error.message
        )
        whole.replace(path)
        durable.flush_folder(path.parent)


def read_package(folder: Path) -> Package:
    """Read a package's manifest. Raises NotFound when the folder is not there, Corrupt."""
    name = _shown(f"{folder.parent.name}/{folder.name}")
    try:
        document: Any = json.loads((folder / MANIFEST).read_bytes())
        manifest = _MANIFEST.validate_python(document)
    except FileNotFoundError:
        if not folder.exists():
            raise NotFound(f"{name} is not installed") from None
        raise Corrupt(
            f"{name} is not a model package: it has no {MANIFEST}",
            hint="remove it, and install it again",
        ) from None
    except OSError as error:
        raise Corrupt(f"{name}/{MANIFEST} cannot be read: {error.strerror}") from None
    except (ValueError, ValidationError, RecursionError):
        raise Corrupt(
            f"{name}/{MANIFEST} is damaged", hint="remove it, and install it again"
        ) from None
    if (manifest.model, manifest.version) != (folder.parent.name, folder.name):
        belongs = _shown(f"{manifest.model}:{manifest.version}")
        raise Corrupt(f"{name}/{MANIFEST} belongs to {belongs[:256]}")
    if manifest.format != FORMAT:
        raise Corrupt(f"{name}/{MANIFEST} is of format {manifest.format}; this is for {FORMAT}")
    for what, text in (("model", manifest.model), ("version", manifest.version)):
        if not _NAME.fullmatch(text):
            raise Corrupt(f"{name}/{MANIFEST}: {text!r} is not a name for a {what}")
    for entry in manifest.artifacts:
        if Path(entry.file).name != entry.file or entry.file in ("", "..") or "\0" in entry.file:
            raise Corrupt(f"{name}/{MANIFEST} names a file outside of the package")
    return Package(manifest, folder)


def _folders(parent: Path, problems: list[str]) -> list[Path]:
    """Return the folders in a folder that are not hidden; add what is wrong to problems."""
    try:
        return sorted(
            path for path in parent.iterdir() if not path.name.startswith(".") and path.is_dir()
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"the folder {_shown(parent.name)} cannot be read: {error.strerror}")
        return []


def _shown(name: str) -> str:
    """Return a file name as text: it may be any bytes."""
    return name.encode(errors="backslashreplace").decode()


def _rename(staged: Path, folder: Path) -> bool:
    """Move a folder to its place; False when another is there."""
    try:
        staged.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _delete(folder: Path) -> None:
    """Delete a folder; of a link, the link. Another may delete it at the same time."""
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Tell whether a folder is there and nobody else has locked it; it is locked then."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield folder.exists()
    finally:
        os.close(lock)


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
