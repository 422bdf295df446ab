"""Access tokens: JWTs in the profile of RFC 9068, signed with EdDSA (RFC 8037).

They carry all that `edge_runtime.auth.TokenVerifier` asks for and cannot be called back, so
their life is bounded; what must be revocable is an API key.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Final

import jwt

from cluster.identity.keys import SigningKey
from cluster.identity.scopes import check_kind, check_name, check_scopes
from edge_runtime.auth import AUDIENCE, ISSUER
from edge_runtime.errors import InvalidInput

MIN_TTL_S: Final = 1.0
MAX_TTL_S: Final = 30 * 86_400.0


def issue(
    key: SigningKey,
    subject: str,
    scopes: Iterable[str],
    ttl_s: float,
    now: float,
    *,
    tenant: str = "default",
    kind: str = "user",
) -> str:
    """Return a token for `subject` that holds from `now` (unix seconds) for `ttl_s` seconds.

    Raises InvalidInput for a scope, a kind or a name that is not allowed, and for a life
    outside of MIN_TTL_S and MAX_TTL_S.
    """
    granted = check_scopes(scopes)
    check_name("subject", subject)
    check_name("tenant", tenant)
    check_kind(kind)
    if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
        raise InvalidInput(
            f"a token lives {MIN_TTL_S:.0f} to {MAX_TTL_S:.0f} seconds, not {ttl_s}",
            field="ttl",
            hint="for something that lasts, create an API key: it can be revoked",
        )
    begin = int(now)
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "iat": begin,
        "nbf": begin,
        "exp": int(now + ttl_s),
        "jti": str(uuid.uuid4()),
        "scope": " ".join(sorted(granted)),
        "tenant": tenant,
        "kind": kind,
    }
    headers = {"typ": "at+jwt", "kid": key.kid}
    return jwt.encode(claims, key.private, algorithm="EdDSA", headers=headers)
