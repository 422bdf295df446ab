"""The key that signs access tokens, and the key set that verifies them.

Ed25519 (RFC 8032) as a PKCS#8 PEM file of mode 0600; its public half is written as a JSON Web
Key Set (RFC 7517, RFC 8037), named by its thumbprint (RFC 7638). The set is derived from the
key, so losing it loses nothing, and a new key means a new set.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from cluster.home import Home
from cluster.identity.files import create_secret, read_secret, replace_public
from edge_runtime.errors import Corrupt


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with the name that tokens carry in their header (kid)."""

    private: Ed25519PrivateKey
    kid: str

    @classmethod
    def of(cls, private: Ed25519PrivateKey) -> SigningKey:
        """Name a private key by the thumbprint of its public half."""
        return cls(private, thumbprint(private.public_key()))


def ensure_signing_key(home: Home) -> SigningKey:
    """Load the signing key, or create it; see that the public key set is its own.

    Raises Unavailable (others can read it, not writable) and Corrupt.
    """
    if not home.signing_key.exists():
        fresh = Ed25519PrivateKey.generate()
        pem = fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        create_secret(home.signing_key, pem)
    key = load_signing_key(home)
    wanted = json.dumps(key_set(key.private.public_key()), indent=2).encode() + b"\n"
    if not home.jwks.exists() or home.jwks.read_bytes() != wanted:
        replace_public(home.jwks, wanted)
    return key


def load_signing_key(home: Home) -> SigningKey:
    """Load the signing key. Raises NotFound, Unavailable (others can read it) and Corrupt."""
    pem = read_secret(home.signing_key)
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Corrupt(f"{home.signing_key} is not a private key") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise Corrupt(f"{home.signing_key} is not an Ed25519 key")
    return SigningKey.of(private)


def key_set(public: Ed25519PublicKey) -> Mapping[str, object]:
    """Return the key set (RFC 7517) that verifies what this key signed."""
    required = _required_members(public)
    return {"keys": [{**required, "kid": thumbprint(public), "use": "sig", "alg": "EdDSA"}]}


def thumbprint(public: Ed25519PublicKey) -> str:
    """Return the SHA-256 thumbprint of a key (RFC 7638; members as RFC 8037 section 2 says)."""
    canonical = json.dumps(_required_members(public), sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _required_members(public: Ed25519PublicKey) -> Mapping[str, str]:
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(raw)}


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
