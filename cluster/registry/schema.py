"""The tables of the embedded registry, version 1.

Versions and history cannot be changed or removed, which triggers enforce against our own
mistakes; the manifest's digest is what notices an edited file. `artifact` repeats the digests
of the manifests, so that unreferenced objects are found without reading every manifest.
"""

from __future__ import annotations

from typing import Final

from cluster.database import Schema


def _never(table: str, change: str) -> str:
    return f"""CREATE TRIGGER {table}_never_{change.lower()} BEFORE {change} ON {table}
        BEGIN SELECT RAISE(ABORT, '{table} rows are immutable'); END"""


REGISTRY: Final = Schema(
    name="the model registry",
    application_id=0x50535247,  # "PSRG"
    version=1,
    statements=(
        """CREATE TABLE state (
            only INTEGER PRIMARY KEY CHECK (only = 1),
            generation INTEGER NOT NULL
        ) STRICT""",
        "INSERT INTO state VALUES (1, 0)",
        """CREATE TABLE version (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            model TEXT NOT NULL,
            version TEXT NOT NULL,
            manifest TEXT NOT NULL,
            digest TEXT NOT NULL,
            created_at REAL NOT NULL,
            created_by TEXT NOT NULL,
            UNIQUE (model, version)
        ) STRICT""",
        """CREATE TABLE artifact (
            digest TEXT NOT NULL,
            version_id INTEGER NOT NULL REFERENCES version (id),
            PRIMARY KEY (digest, version_id)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE alias (
            model TEXT NOT NULL,
            alias TEXT NOT NULL,
            version_id INTEGER NOT NULL REFERENCES version (id),
            PRIMARY KEY (model, alias)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE serving (
            version_id INTEGER PRIMARY KEY REFERENCES version (id),
            placements TEXT NOT NULL,
            options TEXT NOT NULL,
            actor TEXT NOT NULL,
            at REAL NOT NULL
        ) STRICT""",
        """CREATE TABLE history (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            at REAL NOT NULL,
            actor TEXT NOT NULL,
            model TEXT NOT NULL,
            action TEXT NOT NULL,
            version TEXT NOT NULL,
            alias TEXT,
            previous TEXT,
            details TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX history_of_model ON history (model, number)",
        _never("version", "UPDATE"),
        _never("version", "DELETE"),
        _never("history", "UPDATE"),
        _never("history", "DELETE"),
    ),
)
