"""The signing key and Ray's token: made once, private, whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cluster.home import Home
from cluster.identity.keys import ensure_signing_key, load_signing_key, thumbprint
from cluster.identity.ray_token import ensure_ray_token
from edge_runtime.auth import TokenVerifier
from edge_runtime.errors import Corrupt, NotFound, Unavailable
from tests.children import race


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_key_is_made_once_and_is_private(home: Home) -> None:
    key = ensure_signing_key(home)
    assert _mode(home.signing_key) == 0o600
    assert ensure_signing_key(home).kid == key.kid == load_signing_key(home).kid
    assert sorted(p.name for p in home.identity.iterdir()) == ["jwks.json", "signing-key.pem"]


def test_a_key_is_named_by_its_thumbprint() -> None:
    """The example of RFC 8037, appendix A.3."""
    raw = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    public = Ed25519PublicKey.from_public_bytes(raw)
    assert thumbprint(public) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_key_set_has_the_public_half_only_and_a_verifier_takes_it(home: Home) -> None:
    key = ensure_signing_key(home)
    published = json.loads(home.jwks.read_text())
    (listed,) = published["keys"]
    assert listed["kid"] == key.kid
    assert set(listed) == {"kty", "crv", "x", "kid", "use", "alg"}
    TokenVerifier(published)


def test_a_lost_or_stale_key_set_is_written_again(home: Home) -> None:
    key = ensure_signing_key(home)
    home.jwks.unlink()
    ensure_signing_key(home)
    home.signing_key.unlink()
    other = ensure_signing_key(home)
    assert other.kid != key.kid
    assert [k["kid"] for k in json.loads(home.jwks.read_text())["keys"]] == [other.kid]


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o602, 0o644, 0o777])
def test_secrets_that_others_can_read_or_write_are_not_used(home: Home, mode: int) -> None:
    ensure_signing_key(home)
    ensure_ray_token(home)
    home.signing_key.chmod(mode)
    home.ray_token.chmod(mode)
    for use in (load_signing_key, ensure_signing_key, ensure_ray_token):
        with pytest.raises(Unavailable, match="by others") as refused:
            use(home)
        assert "chmod 600" in str(refused.value.hint)


def test_a_key_that_is_not_there_is_not_found(home: Home) -> None:
    with pytest.raises(NotFound) as refused:
        load_signing_key(home)
    assert "prime-spark up" in str(refused.value.hint)


def test_a_file_that_is_no_ed25519_key_is_refused(home: Home) -> None:
    other = generate_private_key(SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    ensure_signing_key(home)
    for content in (b"", b"x", pem, home.signing_key.read_bytes()[:80]):
        home.signing_key.write_bytes(content)
        with pytest.raises(Corrupt):
            ensure_signing_key(home)


def test_a_folder_where_the_key_should_be_is_refused(home: Home) -> None:
    home.signing_key.mkdir(mode=0o700)
    with pytest.raises(Unavailable):
        ensure_signing_key(home)


def test_processes_that_start_together_agree_on_one_key_and_one_token(home: Home) -> None:
    def work(_: int) -> tuple[str, str]:
        return ensure_signing_key(home).kid, ensure_ray_token(home).read_text()

    found = race(6, work)
    assert len(set(found)) == 1
    assert [k["kid"] for k in json.loads(home.jwks.read_text())["keys"]] == [found[0][0]]
    names = sorted(path.name for path in home.identity.iterdir())
    assert names == ["jwks.json", "ray-token", "signing-key.pem"]


def test_rays_token_is_one_private_word_that_stays(home: Home) -> None:
    path = ensure_ray_token(home)
    token = path.read_text()
    assert path == home.ray_token
    assert _mode(path) == 0o600
    assert len(token) == 64
    assert token == token.strip()
    assert ensure_ray_token(home).read_text() == token


@pytest.mark.parametrize("content", [b"", b"short", b"two words " * 8, b"\xff" * 40])
def test_a_damaged_ray_token_is_refused(home: Home, content: bytes) -> None:
    ensure_ray_token(home).write_bytes(content)
    with pytest.raises(Corrupt):
        ensure_ray_token(home)


@pytest.mark.parametrize("make", [ensure_signing_key, ensure_ray_token])
def test_a_home_that_cannot_be_written_is_named(
    tmp_path: Path, make: Callable[[Home], object]
) -> None:
    (tmp_path / "identity").write_bytes(b"")
    with pytest.raises(Unavailable, match="identity"):
        make(Home(tmp_path))
