"""Tokens we issue are those that the verifier takes, and no others can be asked for."""

from __future__ import annotations

import json
import math

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cluster.home import Home
from cluster.identity.keys import SigningKey, ensure_signing_key, key_set
from cluster.identity.scopes import KINDS, SCOPES
from cluster.identity.tokens import MAX_TTL_S, MIN_TTL_S, issue
from edge_runtime.auth import LEEWAY_S, MAX_TOKEN_BYTES, Principal, TokenVerifier
from edge_runtime.errors import InvalidInput, Unauthenticated

NOW = 1_700_000_000.75


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.of(Ed25519PrivateKey.generate())


@pytest.fixture(scope="module")
def verifier(key: SigningKey) -> TokenVerifier:
    return TokenVerifier(key_set(key.private.public_key()))


def test_a_token_says_what_was_asked_for(key: SigningKey, verifier: TokenVerifier) -> None:
    token = issue(key, "ada", ["metrics:read", "infer"], 60, NOW, tenant="acme", kind="device")
    scopes = frozenset({"infer", "metrics:read"})
    assert verifier.verify(token, NOW) == Principal("ada", scopes, "acme", "device")


@given(
    subject=st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=256),
    scopes=st.sets(st.sampled_from(sorted(SCOPES)), min_size=1),
    ttl_s=st.floats(MIN_TTL_S, MAX_TTL_S),
    now=st.floats(0, 4e9),
    kind=st.sampled_from(KINDS),
)
def test_whatever_may_be_issued_is_accepted_for_its_life_and_refused_after(
    key: SigningKey, subject: str, scopes: set[str], ttl_s: float, now: float, kind: str
) -> None:
    verifier = TokenVerifier(key_set(key.private.public_key()))
    token = issue(key, subject, scopes, ttl_s, now, kind=kind)
    assert len(token) <= MAX_TOKEN_BYTES
    for at in (now, now + ttl_s - 0.001):
        assert verifier.verify(token, at) == Principal(subject, frozenset(scopes), kind=kind)
    with pytest.raises(Unauthenticated):
        verifier.verify(token, now + ttl_s + LEEWAY_S)


def test_no_two_tokens_are_the_same(key: SigningKey) -> None:
    assert len({issue(key, "ada", ["infer"], 60, NOW) for _ in range(50)}) == 50


@pytest.mark.parametrize("ttl_s", [0, -1, 0.5, MAX_TTL_S + 1, math.inf, math.nan])
def test_a_life_out_of_bounds_is_refused(key: SigningKey, ttl_s: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        issue(key, "ada", ["infer"], ttl_s, NOW)
    assert refused.value.field == "ttl"


def test_an_unknown_scope_is_refused_with_the_nearest_one(key: SigningKey) -> None:
    with pytest.raises(InvalidInput, match="unknown scope 'model:write'") as refused:
        issue(key, "ada", ["infer", "model:write"], 60, NOW)
    assert refused.value.hint == "did you mean 'models:write'?"
    with pytest.raises(InvalidInput, match="at least one"):
        issue(key, "ada", [], 60, NOW)
    with pytest.raises(InvalidInput):
        issue(key, "ada", ["infer admin"], 60, NOW)


@pytest.mark.parametrize("name", ["", " ", "a\n", "a\x00", "x" * 257, " a", "\ud800"])
def test_a_name_that_cannot_be_logged_is_refused(key: SigningKey, name: str) -> None:
    with pytest.raises(InvalidInput):
        issue(key, name, ["infer"], 60, NOW)
    with pytest.raises(InvalidInput):
        issue(key, "ada", ["infer"], 60, NOW, tenant=name)


def test_an_unknown_kind_is_refused(key: SigningKey) -> None:
    with pytest.raises(InvalidInput):
        issue(key, "ada", ["infer"], 60, NOW, kind="robot")


def test_a_token_is_taken_by_its_own_home_and_by_no_other(
    home: Home, verifier: TokenVerifier
) -> None:
    other = ensure_signing_key(home)
    token = issue(other, "ada", ["admin"], 60, NOW)
    assert TokenVerifier(json.loads(home.jwks.read_text())).verify(token, NOW).subject == "ada"
    with pytest.raises(Unauthenticated):
        verifier.verify(token, NOW)
