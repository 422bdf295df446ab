"""Tokens for tests of the verifier: well signed, and otherwise whatever a test wants."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge_runtime.auth import TokenVerifier

NOW = 1_700_000_000.0
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


JWK: Mapping[str, object] = {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": b64url(PUBLIC)}
VERIFIER = TokenVerifier({"keys": [JWK]})
HEADER = {"alg": "EdDSA", "typ": "at+jwt", "kid": "k1"}
CLAIMS = {
    "iss": "prime-spark",
    "aud": "prime-spark",
    "sub": "ada",
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 60,
    "jti": "1",
    "scope": "infer metrics:read",
}


def sign_raw(header: bytes, claims: bytes, key: Ed25519PrivateKey = KEY) -> str:
    signed = f"{b64url(header)}.{b64url(claims)}"
    return f"{signed}.{b64url(key.sign(signed.encode()))}"


def token(
    header: Mapping[str, object] = HEADER,
    claims: Mapping[str, object] = CLAIMS,
    key: Ed25519PrivateKey = KEY,
) -> str:
    return sign_raw(json.dumps(header).encode(), json.dumps(claims).encode(), key)
