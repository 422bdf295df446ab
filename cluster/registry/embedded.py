"""The registry of one installation: SQLite for what is small, files for what is large.

`registry.sqlite` holds manifests, aliases, the serving table and the history; `objects/` holds
the artifacts by digest. Registration copies and hashes without any lock, then publishes the
files and inserts the rows inside one write transaction, so the files are there before the
version can be seen. Killed between the two, it leaves files that no row names; killed before,
a staging folder. Each registration first removes what dead ones left (`sweep`).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from cluster.database import BUSY_TIMEOUT_S, Database
from cluster.registry import rows
from cluster.registry.checks import (
    check_actor,
    check_artifacts,
    check_card,
    check_entry,
    check_name,
    check_signature,
    is_name,
)
from cluster.registry.manifest import Manifest, digest, encode
from cluster.registry.objects import ObjectStore
from cluster.registry.schema import REGISTRY
from cluster.registry.types import (
    PRODUCTION,
    Action,
    Artifact,
    ArtifactFile,
    HistoryEvent,
    ModelCard,
    ModelVersion,
    ServingEntry,
)
from edge_runtime.errors import Conflict, Corrupt, NotFound
from edge_runtime.protocol.types import Signature


class EmbeddedRegistry:
    """A registry below one folder, for many processes and threads of one host.

    clock: unix seconds. Raises Corrupt when there are artifacts but no database any more.
    """

    def __init__(
        self,
        root: Path,
        *,
        clock: Callable[[], float] = time.time,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        path = root / "registry.sqlite"
        self._clock = clock
        self._objects = ObjectStore(root)
        self._database = Database(path, REGISTRY, busy_timeout_s=busy_timeout_s)
        # In this order: whoever publishes an object has created the database before.
        if not self._objects.is_empty and not path.exists():
            raise Corrupt(
                f"{root} holds artifacts, but {path.name} is gone",
                hint="restore it from a backup, or move the folder away to begin anew",
            )

    def close(self) -> None:
        """Give the connections back; the registry can still be used."""
        self._database.close()

    def register(
        self,
        model: str,
        version: str,
        *,
        signature: Signature,
        artifacts: Sequence[ArtifactFile],
        card: ModelCard,
        actor: str,
    ) -> ModelVersion:
        """Copy the files in and make the version visible; see `Registry.register`."""
        check_name("model", model)
        check_name("version", version)
        check_actor(actor)
        check_signature(signature)
        check_artifacts(artifacts)
        check_card(card)
        with self._database.read():
            pass  # The database comes into being before anything else does.
        self.sweep()
        with self._objects.staging() as folder:
            staged = [(each, self._objects.stage(folder, each.path)) for each in artifacts]
            kept = sorted(
                (Artifact(f.format, copy.digest, copy.size_bytes, f.target) for f, copy in staged),
                key=lambda artifact: (artifact.format, artifact.target),
            )
            text = encode(Manifest(model, version, signature, tuple(kept), card))
            found = digest(text)
            with self._database.write() as db:
                _refuse_taken(db, model, version, found)
                for copy in {copy.digest: copy for _, copy in staged}.values():
                    self._objects.publish(copy)
                at = self._clock()
                row_id = rows.insert_version(db, model, version, text, found, at, actor)
                rows.insert_artifacts(db, row_id, {copy.digest for _, copy in staged})
                rows.record(db, at, actor, model, Action.REGISTERED, version)
                rows.next_generation(db)
        return self.get(model, version)

    def get(self, model: str, version: str) -> ModelVersion:
        """Return a version. Raises NotFound, Corrupt."""
        with self._database.read() as db:
            return rows.version(_find(db, model, version))

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Return a model's versions in the order of registration; none if it is unknown."""
        if not is_name(model):
            return ()
        with self._database.read() as db:
            found = db.execute(f"{rows.VERSIONS} WHERE model = ? ORDER BY id", (model,)).fetchall()
        return tuple(map(rows.version, found))

    def models(self) -> tuple[str, ...]:
        """Return the names of all models, sorted."""
        with self._database.read() as db:
            found = db.execute("SELECT DISTINCT model FROM version ORDER BY model").fetchall()
        return tuple(model for (model,) in found)

    def resolve(self, model: str, ref: str | None) -> ModelVersion:
        """Return what `ref` (a version or an alias) means; None: `production`, else the newest."""
        with self._database.read() as db:
            if ref is None:
                wanted = rows.aliases(db, model).get(PRODUCTION) or _newest(db, model)
            elif is_name(ref):
                wanted = rows.aliases(db, model).get(ref, ref)
            else:
                wanted = ref
            return rows.version(_find(db, model, wanted))

    def aliases(self, model: str) -> Mapping[str, str]:
        """Return the version each alias of the model points to."""
        with self._database.read() as db:
            return rows.aliases(db, model)

    def set_alias(
        self, model: str, alias: str, version: str | None, *, expected: str | None, actor: str
    ) -> None:
        """Move an alias from `expected` to `version`; see `Registry.set_alias`."""
        check_name("model", model)
        check_name("alias", alias)
        check_actor(actor)
        with self._database.write() as db:
            row_id = None if version is None else _find(db, model, version)[0]
            if rows.find_version(db, model, alias) is not None:
                raise Conflict(f"'{alias}' is a version of model '{model}'", field="alias")
            actual = rows.aliases(db, model).get(alias)
            if actual != expected:
                raise Conflict(
                    f"alias '{alias}' of model '{model}' {_points(actual)}, not as expected",
                    field="alias",
                    hint="look at what was changed, then move it from there",
                    details={"actual": actual},
                )
            if version == actual:
                return
            rows.point_alias(db, model, alias, row_id)
            action = Action.ALIAS_REMOVED if version is None else Action.ALIAS_MOVED
            about = version or actual or ""
            rows.record(db, self._clock(), actor, model, action, about, alias, actual)
            rows.next_generation(db)

    def history(self, model: str) -> tuple[HistoryEvent, ...]:
        """Return everything that was done to the model, oldest first."""
        if not is_name(model):
            return ()
        with self._database.read() as db:
            found = db.execute(
                f"{rows.EVENTS} WHERE model = ? ORDER BY number", (model,)
            ).fetchall()
        return tuple(map(rows.event, found))

    def artifact_path(self, artifact: Artifact, *, verify: bool = False) -> Path:
        """Return a local, read-only file with the artifact's bytes. Raises Corrupt."""
        if verify:
            return self._objects.verify(artifact.digest, artifact.size_bytes)
        return self._objects.path(artifact.digest, artifact.size_bytes)

    def serve(self, entry: ServingEntry) -> int:
        """Put a version into the serving table, or replace its entry; return the generation."""
        check_entry(entry)
        with self._database.write() as db:
            row_id = _find(db, entry.model, entry.version)[0]
            details = rows.put_serving(db, row_id, entry)
            rows.record(
                db,
                entry.at,
                entry.actor,
                entry.model,
                Action.SERVED,
                entry.version,
                details=details,
            )
            return rows.next_generation(db)

    def stop_serving(self, model: str, version: str, *, actor: str) -> int:
        """Take a version out of the serving table; return the generation. Raises NotFound."""
        check_actor(actor)
        with self._database.write() as db:
            row_id = _find(db, model, version)[0]
            if not rows.drop_serving(db, row_id):
                raise NotFound(f"model '{model}' version '{version}' is not in the serving table")
            rows.record(db, self._clock(), actor, model, Action.STOPPED, version)
            return rows.next_generation(db)

    def serving(self) -> tuple[int, tuple[ServingEntry, ...]]:
        """Return the generation and the serving table, by model in order of registration."""
        with self._database.read() as db:
            return rows.generation(db), rows.serving(db)

    def serving_generation(self) -> int:
        """Return the generation alone."""
        with self._database.read() as db:
            return rows.generation(db)

    def sweep(self) -> int:
        """Remove what killed registrations left; return how many of them there were.

        The staging folders go last: as long as one is there, the next sweep looks again.
        """
        with ExitStack() as locks:
            abandoned = self._objects.abandoned()
            for _, lock in abandoned:
                locks.callback(os.close, lock)
            if abandoned:
                with self._database.write() as db:
                    self._objects.remove_unreferenced(rows.referenced_digests(db))
            for folder, _ in abandoned:
                self._objects.remove_folder(folder)
            return len(abandoned)


def _find(db: sqlite3.Connection, model: str, version: str) -> rows.VersionRow:
    found = rows.find_version(db, model, version)
    if found is not None:
        return found
    if not rows.has_model(db, model):
        raise NotFound(
            f"there is no model '{model[:128]}'",
            field="model",
            hint="`prime-spark model list` shows the models there are",
        )
    raise NotFound(f"model '{model}' has no version or alias '{version[:128]}'", field="version")


def _newest(db: sqlite3.Connection, model: str) -> str:
    """Return the newest version's name, or a text that no version has."""
    if not is_name(model):
        return ""
    row = db.execute(
        "SELECT version FROM version WHERE model = ? ORDER BY id DESC LIMIT 1", (model,)
    ).fetchone()
    return row[0] if row else ""


def _refuse_taken(db: sqlite3.Connection, model: str, version: str, found: str) -> None:
    there = rows.find_version(db, model, version)
    if there is not None:
        is_identical = there.digest == found
        raise Conflict(
            f"model '{model}' has a version '{version}' already"
            + (", with the same content" if is_identical else ", with other content"),
            field="version",
            hint=None if is_identical else "a version never changes: register it as a new one",
            details={"identical": is_identical},
        )
    if version in rows.aliases(db, model):
        raise Conflict(
            f"'{version}' is an alias of model '{model}'",
            field="version",
            details={"identical": False},
        )


def _points(version: str | None) -> str:
    return "does not exist" if version is None else f"points to '{version}'"
