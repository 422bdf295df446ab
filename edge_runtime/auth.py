"""Who is calling: verification of access tokens and API keys, with nothing but public keys.

A token is a JWT signed with EdDSA (RFC 8037) in the profile of RFC 9068. The rules of
RFC 8725 hold: the algorithm belongs to the key and is never read from the header, headers
that carry or point to keys are refused, and every claim is required. Verification needs a
key set only, so an edge can do it offline; making tokens is `cluster.identity`'s part. A token is
taken apart here, because PyJWT brings every algorithm there is, and an edge box its 4 MB.

`Authenticator` joins both kinds of credential. Verified tokens are remembered by digest for
at most `CACHE_S` seconds, because a signature check costs about 0.1 ms of CPU.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_runtime.errors import Forbidden, Unauthenticated

ISSUER = "prime-spark"
AUDIENCE = "prime-spark"
MAX_TOKEN_BYTES = 8192
LEEWAY_S = 30.0
CACHE_S = 30.0
CACHE_ENTRIES = 1024
REQUIRED_CLAIMS = ("iss", "aud", "sub", "iat", "nbf", "exp", "jti")
REFUSED_HEADERS = ("jku", "x5u", "jwk", "x5c", "crit")
HINT = "get one with `prime-spark token` and send it as `Authorization: Bearer TOKEN`"

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_END_OF_TIME = 1e12


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller that proved who it is. kind: user, service or device."""

    subject: str
    scopes: frozenset[str]
    tenant: str = "default"
    kind: str = "service"
    expires_at: float = field(default=float("inf"), compare=False)

    def require(self, scope: str) -> None:
        """Raise Forbidden unless this caller holds the scope; `admin` holds all."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise Forbidden(
                f"'{self.subject}' may not do this: scope '{scope}' is missing",
                field="authorization",
                hint=f"ask for a token with `prime-spark token --scope {scope}`",
            )


class TokenVerifier:
    """Checks tokens against a JSON Web Key Set (RFC 7517) of Ed25519 signing keys.

    Raises ValueError at construction when the set holds no usable key, or one meant for
    another purpose (`use`, `key_ops`, `alg` are honoured: RFC 7517, sections 4.2-4.4).
    """

    def __init__(
        self, jwks: Mapping[str, object], issuer: str = ISSUER, audience: str = AUDIENCE
    ) -> None:
        self._keys = dict(_load_keys(jwks))
        if not self._keys:
            raise ValueError("the key set holds no Ed25519 signing key")
        self._issuer = issuer
        self._audience = audience

    def verify(self, token: str, now: float) -> Principal:
        """Return the caller (now: unix seconds). Raises Unauthenticated, never anything else."""
        header = _header(token)
        kid = header.get("kid")
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise _refuse("the token is signed by a key that is not known here")
        signed, _, signature = token.rpartition(".")
        try:
            key.verify(_decode_segment(signature), signed.encode("ascii"))
        except InvalidSignature:
            raise _refuse("the token's signature does not hold") from None
        return self._principal(token, now)

    def _principal(self, token: str, now: float) -> Principal:
        claims = _read_object(token.split(".")[1], "claims")
        missing = [name for name in REQUIRED_CLAIMS if name not in claims]
        if missing:
            raise _refuse(f"the token lacks the claim '{missing[0]}'")
        audience = claims["aud"]
        audiences = audience if isinstance(audience, list) else [audience]
        if claims["iss"] != self._issuer or self._audience not in audiences:
            raise _refuse("the token was issued by or for somebody else")
        expires, not_before = claims["exp"], claims["nbf"]
        if not all(map(_is_time, (expires, not_before, claims["iat"]))):
            raise _refuse("the token's times are not numbers")
        if now >= expires + LEEWAY_S:
            raise _refuse("the token has expired")
        if now < not_before - LEEWAY_S:
            raise _refuse("the token is not valid yet")
        subject, scope = claims["sub"], claims.get("scope", "")
        if not isinstance(subject, str) or not subject or not isinstance(scope, str):
            raise _refuse("the token's subject or scope is not text")
        return Principal(
            subject=subject,
            scopes=frozenset(scope.split()),
            tenant=str(claims.get("tenant", "default")),
            kind=str(claims.get("kind", "user")),
            expires_at=float(expires) + LEEWAY_S,
        )


class Authenticates(Protocol):
    """Turns what a caller sent into a principal. Raises Unauthenticated."""

    def authenticate(self, authorization: str | None, api_key: str | None = None) -> Principal: ...


class ApiKeys(Protocol):
    """Looks an API key up by its text; None when it is unknown, expired or revoked."""

    def verify(self, key: str, now: float) -> Principal | None: ...


class Authenticator:
    """Turns an `Authorization` or `X-API-Key` value into a principal.

    clock: unix seconds. Forget everything remembered with `forget()` (keys rotated, revoked).
    """

    def __init__(
        self, verifier: TokenVerifier, api_keys: ApiKeys | None, clock: Callable[[], float]
    ) -> None:
        self._verifier = verifier
        self._api_keys = api_keys
        self._clock = clock
        self._seen: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    def authenticate(self, authorization: str | None, api_key: str | None = None) -> Principal:
        """Return the caller. Raises Unauthenticated when no credential holds."""
        credential = api_key or _bearer(authorization)
        digest = hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()
        now = self._clock()
        hit = self._seen.get(digest)
        if hit is not None and now < hit[0]:
            return hit[1]
        principal = self._check(credential, now)
        self._seen[digest] = (min(now + CACHE_S, principal.expires_at), principal)
        self._seen.move_to_end(digest)
        while len(self._seen) > CACHE_ENTRIES:
            self._seen.popitem(last=False)
        return principal

    def forget(self) -> None:
        """Drop remembered verdicts; the next call checks again."""
        self._seen.clear()

    def _check(self, credential: str, now: float) -> Principal:
        if not credential.startswith("ps_"):
            return self._verifier.verify(credential, now)
        found = self._api_keys.verify(credential, now) if self._api_keys else None
        if found is None:
            raise _refuse("the API key is not known here, expired or revoked")
        return found


LOCAL: Final = Principal("local", frozenset({"infer", "models:write", "metrics:read"}))


class LocalCaller:
    """Stands in for `Authenticator` on a Unix socket: the file's mode says who may call.

    Whoever can open it may do what an operator of this box may.
    """

    def authenticate(self, authorization: str | None, api_key: str | None = None) -> Principal:
        """Return the caller, whatever credential it may have sent."""
        return LOCAL


def _bearer(authorization: str | None) -> str:
    if not authorization:
        raise _refuse("this needs a token")
    scheme, _, credential = authorization.partition(" ")
    credential = credential.strip()
    if scheme.lower() != "bearer" or not credential:
        raise _refuse("the authorization scheme must be Bearer")
    return credential


def _header(token: str) -> Mapping[str, object]:
    if len(token) > MAX_TOKEN_BYTES:
        raise _refuse(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
    if token.count(".") != 2:
        raise _refuse("the token is not a JWT")
    for segment in token.split("."):
        _decode_segment(segment)
    header = _read_object(token.split(".")[0], "header")
    if header.get("alg") != "EdDSA":
        raise _refuse("the token's algorithm must be EdDSA")
    if str(header.get("typ", "")).lower() not in ("at+jwt", "application/at+jwt"):
        raise _refuse("the token is not an access token (typ at+jwt)")
    named = [name for name in REFUSED_HEADERS if name in header]
    if named:
        raise _refuse(f"the token's header may not carry '{named[0]}'")
    return header


def _read_object(segment: str, what: str) -> Mapping[str, Any]:
    """Read a part of a token, which must be a JSON object without repeated names (RFC 7519, 4)."""
    try:
        found = json.loads(_decode_segment(segment), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        raise _refuse(f"the token's {what} cannot be read") from None
    if not isinstance(found, dict):
        raise _refuse(f"the token's {what} is not an object")
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is repeated")
    return found


def _decode_segment(segment: str) -> bytes:
    """Decode canonical unpadded base64url (RFC 7515, appendix C); refuse any other spelling."""
    if not _SEGMENT.fullmatch(segment):
        raise _refuse("the token is not canonical base64url")
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (binascii.Error, ValueError):
        raise _refuse("the token is not canonical base64url") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != segment.encode("ascii"):
        raise _refuse("the token is not canonical base64url")
    return raw


def _load_keys(jwks: Mapping[str, object]) -> Sequence[tuple[str, Ed25519PublicKey]]:
    listed = jwks.get("keys")
    keys: list[tuple[str, Ed25519PublicKey]] = []
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, Mapping):
            continue
        usable = (
            entry.get("kty") == "OKP"
            and entry.get("crv") == "Ed25519"
            and entry.get("use", "sig") == "sig"
            and _may_verify(entry.get("key_ops", ["verify"]))
            and entry.get("alg", "EdDSA") == "EdDSA"
        )
        kid, x = entry.get("kid"), entry.get("x")
        if usable and isinstance(kid, str) and isinstance(x, str):
            raw = base64.urlsafe_b64decode(x + "=" * (-len(x) % 4))
            keys.append((kid, Ed25519PublicKey.from_public_bytes(raw)))
    return keys


def _may_verify(key_ops: object) -> bool:
    return isinstance(key_ops, list) and "verify" in key_ops


def _is_time(value: object) -> bool:
    """Tell whether this is a number of seconds; JSON as Python reads it has NaN and bigger ones."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_END_OF_TIME < value < _END_OF_TIME


def _refuse(why: str) -> Unauthenticated:
    return Unauthenticated(why, field="authorization", hint=HINT)
