"""Rows of the embedded registry as values, and the statements that read and write them.

Every function works inside the caller's transaction. What is read is checked: a row that could
not have been written raises `Corrupt`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from cluster.registry import manifest
from cluster.registry.checks import check_entry, is_name
from cluster.registry.types import Action, HistoryEvent, ModelVersion, ServingEntry
from edge_runtime.errors import Corrupt, InvalidInput

VERSIONS: Final = "SELECT id, model, version, manifest, digest, created_at, created_by FROM version"
EVENTS: Final = (
    "SELECT number, at, actor, model, action, version, alias, previous, details FROM history"
)


class VersionRow(NamedTuple):
    id: int
    model: str
    version: str
    manifest: str
    digest: str
    created_at: float
    created_by: str


def find_version(db: sqlite3.Connection, model: str, version: str) -> VersionRow | None:
    """Return a version's row; None too for what could not be a name."""
    if not (is_name(model) and is_name(version)):
        return None
    row = db.execute(f"{VERSIONS} WHERE model = ? AND version = ?", (model, version)).fetchone()
    return VersionRow(*row) if row else None


def has_model(db: sqlite3.Connection, model: str) -> bool:
    """Tell whether the model has a version."""
    if not is_name(model):
        return False
    row = db.execute("SELECT 1 FROM version WHERE model = ? LIMIT 1", (model,)).fetchone()
    return row is not None


def version(row: tuple[Any, ...]) -> ModelVersion:
    """Return the version a row of VERSIONS describes. Raises Corrupt."""
    found = VersionRow(*row)
    return manifest.decode(
        found.manifest,
        found.digest,
        found.model,
        found.version,
        found.created_at,
        found.created_by,
    )


def insert_version(
    db: sqlite3.Connection, model: str, name: str, text: str, digest: str, at: float, actor: str
) -> int:
    """Add a version; return its row's id."""
    cursor = db.execute(
        "INSERT INTO version (model, version, manifest, digest, created_at, created_by) "
        "VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
        (model, name, text, digest, at, actor),
    )
    return int(cursor.fetchone()[0])


def insert_artifacts(db: sqlite3.Connection, version_id: int, digests: Collection[str]) -> None:
    """Say that a version needs these objects."""
    db.executemany(
        "INSERT INTO artifact (digest, version_id) VALUES (?, ?)",
        [(digest, version_id) for digest in digests],
    )


def referenced_digests(db: sqlite3.Connection) -> frozenset[str]:
    """Return every object that some version needs."""
    return frozenset(digest for (digest,) in db.execute("SELECT DISTINCT digest FROM artifact"))


def aliases(db: sqlite3.Connection, model: str) -> Mapping[str, str]:
    """Return the version each alias of the model points to."""
    if not is_name(model):
        return {}
    return dict(
        db.execute(
            "SELECT alias.alias, version.version FROM alias "
            "JOIN version ON version.id = alias.version_id WHERE alias.model = ? "
            "ORDER BY alias.alias",
            (model,),
        ).fetchall()
    )


def point_alias(db: sqlite3.Connection, model: str, alias: str, version_id: int | None) -> None:
    """Let an alias point to a version; None removes it."""
    if version_id is None:
        db.execute("DELETE FROM alias WHERE model = ? AND alias = ?", (model, alias))
    else:
        db.execute(
            "INSERT INTO alias (model, alias, version_id) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET version_id = excluded.version_id",
            (model, alias, version_id),
        )


def put_serving(
    db: sqlite3.Connection, version_id: int, entry: ServingEntry
) -> Mapping[str, object]:
    """Write an entry of the serving table; return what the history says of it."""
    details = {"placements": sorted(entry.placements), "options": dict(entry.options)}
    db.execute(
        "INSERT INTO serving (version_id, placements, options, actor, at) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET placements = excluded.placements, "
        "options = excluded.options, actor = excluded.actor, at = excluded.at",
        (
            version_id,
            json.dumps(details["placements"]),
            json.dumps(details["options"], sort_keys=True),
            entry.actor,
            entry.at,
        ),
    )
    return details


def drop_serving(db: sqlite3.Connection, version_id: int) -> bool:
    """Remove an entry of the serving table; tell whether it was there."""
    return db.execute("DELETE FROM serving WHERE version_id = ?", (version_id,)).rowcount > 0


def serving(db: sqlite3.Connection) -> tuple[ServingEntry, ...]:
    """Return the serving table, by model in order of registration. Raises Corrupt."""
    found = db.execute(
        "SELECT model, version, placements, options, actor, at FROM serving "
        "JOIN version ON version.id = serving.version_id ORDER BY model, version.id"
    ).fetchall()
    return tuple(_entry(*row) for row in found)


def generation(db: sqlite3.Connection) -> int:
    """Return the number of the current state. Raises Corrupt."""
    row = db.execute("SELECT generation FROM state").fetchone()
    if row is None or not isinstance(row[0], int):
        raise Corrupt("the registry lost its generation")
    return row[0]


def next_generation(db: sqlite3.Connection) -> int:
    """Count a change that servers have to know of; return the new generation."""
    following = generation(db) + 1
    db.execute("UPDATE state SET generation = ?", (following,))
    return following


def record(
    db: sqlite3.Connection,
    at: float,
    actor: str,
    model: str,
    action: Action,
    version: str,
    alias: str | None = None,
    previous: str | None = None,
    details: Mapping[str, object] | None = None,
) -> None:
    """Append an event to the history."""
    db.execute(
        "INSERT INTO history (at, actor, model, action, version, alias, previous, details) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (at, actor, model, action.value, version, alias, previous, json.dumps(details or {})),
    )


def event(row: tuple[Any, ...]) -> HistoryEvent:
    """Return the event a row of EVENTS tells. Raises Corrupt."""
    number, at, actor, model, action, version, alias, previous, details = row
    try:
        return HistoryEvent(
            number, at, actor, model, Action(action), version, alias, previous, json.loads(details)
        )
    except ValueError as error:
        raise Corrupt(f"event {number} of the history cannot be read: {error}") from None


def _entry(
    model: str, version: str, placements: str, options: str, actor: str, at: float
) -> ServingEntry:
    try:
        entry = ServingEntry(
            model, version, frozenset(json.loads(placements)), json.loads(options), actor, at
        )
        check_entry(entry)
    except (ValueError, TypeError, AttributeError, InvalidInput) as error:
        raise Corrupt(f"the serving entry of {model}:{version} cannot be read: {error}") from None
    return entry
