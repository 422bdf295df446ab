"""API keys: long-lived credentials that can be revoked, kept as digests in SQLite.

A key reads `ps_<id>_<secret><checksum>`. The prefix and the CRC-32 let secret scanners find
leaked keys without false alarms, and let us refuse a mistyped one without a look-up. The secret
has 256 random bits, so one SHA-256 is enough to keep it (a slow hash is for passwords).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from cluster.database import Database, Schema
from cluster.identity.scopes import check_name, check_scopes
from edge_runtime.auth import Principal
from edge_runtime.errors import InvalidInput, NotFound

MIN_TTL_S: Final = 1.0

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_CHARS: Final = 43  # 62 ** 43 > 2 ** 256
_CHECKSUM_CHARS: Final = 6  # 62 ** 6 > 2 ** 32
_FORM: Final = re.compile(r"ps_([0-9a-f]{16})_[0-9A-Za-z]{49}")
_SCHEMA: Final = Schema(
    name="the API key store",
    application_id=0x5053414B,  # "PSAK"
    version=1,
    statements=(
        """CREATE TABLE api_key (
            id TEXT PRIMARY KEY,
            digest BLOB NOT NULL,
            subject TEXT NOT NULL,
            tenant TEXT NOT NULL,
            scopes TEXT NOT NULL,
            created_at REAL NOT NULL,
            expires_at REAL,
            revoked_at REAL
        ) STRICT""",
    ),
)
_KEYS: Final = (
    "SELECT digest, id, subject, tenant, scopes, created_at, expires_at, revoked_at FROM api_key"
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key; times in unix seconds, None where that never happens."""

    id: str
    subject: str
    tenant: str
    scopes: frozenset[str]
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class NewApiKey(NamedTuple):
    """text: the key itself, which can be shown only now."""

    text: str
    record: ApiKey


class ApiKeyStore:
    """The keys of one installation; the file is created with the first key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = Database(path, _SCHEMA)

    def create(
        self,
        subject: str,
        scopes: Iterable[str],
        now: float,
        ttl_s: float | None = None,
        *,
        tenant: str = "default",
    ) -> NewApiKey:
        """Make a key that holds for `ttl_s` seconds, or until it is revoked.

        Raises InvalidInput for a scope, a name or a life that is not allowed.
        """
        granted = check_scopes(scopes)
        check_name("subject", subject)
        check_name("tenant", tenant)
        if ttl_s is not None and not MIN_TTL_S <= ttl_s < float("inf"):
            raise InvalidInput(f"an API key cannot live {ttl_s} seconds", field="ttl")
        key_id = secrets.token_hex(8)
        text = _with_checksum(f"ps_{key_id}_{_random_text(_SECRET_CHARS)}")
        expires_at = None if ttl_s is None else now + ttl_s
        record = ApiKey(key_id, subject, tenant, granted, now, expires_at, None)
        with self._database.write() as db:
            db.execute(
                "INSERT INTO api_key (id, digest, subject, tenant, scopes, created_at, expires_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    key_id,
                    _digest(text),
                    subject,
                    tenant,
                    " ".join(sorted(granted)),
                    now,
                    expires_at,
                ),
            )
        return NewApiKey(text, record)

    def verify(self, key: str, now: float) -> Principal | None:
        """Return the caller that holds this key; None when it is unknown, expired or revoked."""
        form = _FORM.fullmatch(key)
        if form is None or key != _with_checksum(key[:-_CHECKSUM_CHARS]) or not self._path.exists():
            return None
        with self._database.read() as db:
            row = db.execute(f"{_KEYS} WHERE id = ?", (form[1],)).fetchone()
        if row is None or not hmac.compare_digest(row[0], _digest(key)):
            return None
        record = _record(row)
        expires_at = float("inf") if record.expires_at is None else record.expires_at
        if record.revoked_at is not None or now >= expires_at:
            return None
        return Principal(record.subject, record.scopes, record.tenant, "service", expires_at)

    def list(self) -> tuple[ApiKey, ...]:
        """Return all keys, revoked and expired ones too, oldest first."""
        if not self._path.exists():
            return ()
        with self._database.read() as db:
            rows = db.execute(f"{_KEYS} ORDER BY created_at, id").fetchall()
        return tuple(map(_record, rows))

    def revoke(self, key_id: str, now: float) -> None:
        """End a key at once; again is no error. Raises NotFound.

        A gateway that saw it lately goes on accepting it for `edge_runtime.auth.CACHE_S`.
        """
        count = 0
        if self._path.exists() and key_id.isascii():
            with self._database.write() as db:
                count = db.execute(
                    "UPDATE api_key SET revoked_at = ifnull(revoked_at, ?) WHERE id = ?",
                    (now, key_id),
                ).rowcount
        if not count:
            raise NotFound(f"there is no API key '{key_id[:64]}'", field="id")


def _record(
    row: tuple[bytes, str, str, str, str, float, float | None, float | None],
) -> ApiKey:
    _, key_id, subject, tenant, scopes, created_at, expires_at, revoked_at = row
    granted = frozenset(scopes.split())
    return ApiKey(key_id, subject, tenant, granted, created_at, expires_at, revoked_at)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _with_checksum(text: str) -> str:
    left, found = zlib.crc32(text.encode()), ""
    for _ in range(_CHECKSUM_CHARS):
        left, digit = divmod(left, len(_ALPHABET))
        found = _ALPHABET[digit] + found
    return text + found
