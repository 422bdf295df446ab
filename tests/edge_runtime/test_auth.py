"""Every attack of RFC 8725 on the verifier of tokens, and the Wycheproof vectors."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge_runtime.auth import (
    LEEWAY_S,
    MAX_TOKEN_BYTES,
    REFUSED_HEADERS,
    REQUIRED_CLAIMS,
    Principal,
    TokenVerifier,
)
from edge_runtime.errors import Unauthenticated
from tests.edge_runtime.tokens import (
    CLAIMS,
    HEADER,
    JWK,
    KEY,
    NOW,
    OTHER_KEY,
    PUBLIC,
    VERIFIER,
    b64url,
    sign_raw,
)
from tests.edge_runtime.tokens import token as make_token

WYCHEPROOF = (
    Path(__file__).parents[3] / "shared" / "data" / "wycheproof" / "json_web_signature_test.json"
)


def _refuses(token: str, match: str | None = None, now: float = NOW) -> None:
    with pytest.raises(Unauthenticated, match=match):
        VERIFIER.verify(token, now)


def test_a_good_token_says_who_calls_and_what_is_allowed() -> None:
    claims = {**CLAIMS, "tenant": "acme", "kind": "device", "aud": ["x", "prime-spark"]}
    assert VERIFIER.verify(make_token(claims=claims), NOW) == Principal(
        "ada", frozenset({"infer", "metrics:read"}), "acme", "device"
    )


def test_a_token_of_another_library_is_accepted() -> None:
    token = jwt.encode(CLAIMS, KEY, "EdDSA", headers={"kid": "k1", "typ": "at+jwt"})
    assert VERIFIER.verify(token, NOW).subject == "ada"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS256", "ES256", "RS256", "eddsa", "", 1])
def test_no_other_algorithm_is_taken_from_the_header(alg: object) -> None:
    _refuses(make_token({**HEADER, "alg": alg}))


def test_an_unsigned_token_is_refused() -> None:
    header, claims = json.dumps({**HEADER, "alg": "none"}), json.dumps(CLAIMS)
    _refuses(f"{b64url(header.encode())}.{b64url(claims.encode())}.")


@pytest.mark.parametrize("alg", ["HS256", "EdDSA"])
@pytest.mark.parametrize("secret", [PUBLIC, str(JWK["x"]).encode(), json.dumps(JWK).encode(), b""])
def test_the_public_key_is_no_shared_secret(alg: str, secret: bytes) -> None:
    header = b64url(json.dumps({**HEADER, "alg": alg}).encode())
    signed = f"{header}.{b64url(json.dumps(CLAIMS).encode())}"
    _refuses(f"{signed}.{b64url(hmac.digest(secret, signed.encode(), hashlib.sha256))}")


@pytest.mark.parametrize("name", REFUSED_HEADERS)
def test_headers_that_bring_their_own_key_or_rules_are_refused(name: str) -> None:
    other = OTHER_KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    value = {"jwk": {**JWK, "x": b64url(other)}, "crit": ["exp"], "x5c": ["MIIB"]}
    header = {**HEADER, name: value.get(name, "https://attacker.example/keys")}
    _refuses(make_token(header, key=OTHER_KEY))
    _refuses(make_token(header), match=f"may not carry '{name}'|header cannot be read")


@pytest.mark.parametrize("kid", ["k2", "", None, 1, ["k1"], {"k1": 1}, "../k1", "k1\x00"])
def test_a_key_that_is_not_known_here_is_refused(kid: object) -> None:
    _refuses(make_token({**HEADER, "kid": kid}))


def test_a_token_without_a_key_name_is_refused() -> None:
    _refuses(make_token({"alg": "EdDSA", "typ": "at+jwt"}))


def test_a_signature_by_another_key_or_over_other_bytes_is_refused() -> None:
    _refuses(make_token(key=OTHER_KEY), match="signature")
    header, claims, signature = make_token().split(".")
    changed = b64url(json.dumps({**CLAIMS, "scope": "admin"}).encode())
    _refuses(f"{header}.{changed}.{signature}", match="signature")
    for bad in (signature[:-2], signature + "AA", "A" * len(signature), b64url(bytes(64)), "AA"):
        _refuses(f"{header}.{claims}.{bad}")


@pytest.mark.parametrize("typ", ["JWT", "jwt", "", "id+jwt", "dpop+jwt", None, 1])
def test_a_token_made_for_something_else_is_refused(typ: object) -> None:
    _refuses(make_token({**HEADER, "typ": typ}), match="access token|header cannot be read")


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "somebody"},
        {"iss": ["prime-spark"]},
        {"iss": None},
        {"aud": "somebody"},
        {"aud": ["somebody"]},
        {"aud": []},
        {"aud": None},
        {"aud": {"prime-spark": 1}},
        {"aud": "prime-spark-2"},
    ],
)
def test_a_token_by_or_for_somebody_else_is_refused(changed: Mapping[str, object]) -> None:
    _refuses(make_token(claims={**CLAIMS, **changed}), match="somebody else")


@pytest.mark.parametrize("name", REQUIRED_CLAIMS)
def test_every_claim_is_required(name: str) -> None:
    claims = {key: value for key, value in CLAIMS.items() if key != name}
    _refuses(make_token(claims=claims), match=f"lacks the claim '{name}'")


def test_a_token_holds_between_its_times_with_leeway_for_clocks() -> None:
    token = make_token()
    for now in (NOW - LEEWAY_S, NOW, NOW + 60 + LEEWAY_S - 0.001):
        assert VERIFIER.verify(token, now).subject == "ada"
    _refuses(token, "expired", NOW + 60 + LEEWAY_S)
    _refuses(token, "not valid yet", NOW - LEEWAY_S - 0.001)


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value",
    ["1800000000", None, True, [1], "NaN", 10**400, -(10**400)],
    ids=lambda value: str(value)[:12],
)
def test_times_that_are_no_numbers_are_refused(claim: str, value: object) -> None:
    _refuses(make_token(claims={**CLAIMS, claim: value}))


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_times_outside_of_json_are_refused(literal: bytes) -> None:
    claims = json.dumps({**CLAIMS, "exp": 0}).encode().replace(b'"exp": 0', b'"exp": ' + literal)
    _refuses(sign_raw(json.dumps(HEADER).encode(), claims))


@pytest.mark.parametrize("changed", [{"sub": ""}, {"sub": 1}, {"scope": ["admin"]}, {"scope": 1}])
def test_a_subject_and_scopes_are_text(changed: Mapping[str, object]) -> None:
    _refuses(make_token(claims={**CLAIMS, **changed}))


def test_other_spellings_of_the_same_bytes_are_refused() -> None:
    header, claims, signature = make_token().split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    respelled = signature[:-1] + last[last.index(signature[-1]) ^ 1]
    assert base64.urlsafe_b64decode(respelled + "==") == base64.urlsafe_b64decode(signature + "==")
    for token in (
        f"{header}.{claims}.{respelled}",
        f"{header}.{claims}.{signature}==",
        f"{header}.{claims}.{signature}\n",
        f" {header}.{claims}.{signature}",
        f"{header}.{claims[:8]}\n{claims[8:]}.{signature}",
        f"{header}.{claims}.{signature.replace('-', '+').replace('_', '/')}+",
    ):
        _refuses(token)


def test_only_three_segments_make_a_token() -> None:
    token = make_token()
    for bad in ("", ".", "..", "...", f"{token}.", f".{token}", f"{token}.{token}", token[:-90]):
        _refuses(bad)
    encrypted = ".".join([*token.split("."), "AA", "AA"])
    _refuses(encrypted, match="not a JWT")


def test_a_huge_token_is_refused_before_it_is_decoded() -> None:
    _refuses("A" * (MAX_TOKEN_BYTES + 1), match="longer than")
    _refuses(make_token(claims={**CLAIMS, "x": "y" * MAX_TOKEN_BYTES}), match="longer than")


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deeply_nested_json_is_refused(opening: bytes) -> None:
    deep = opening * (4000 // len(opening))
    _refuses(sign_raw(deep, json.dumps(CLAIMS).encode()))
    _refuses(sign_raw(json.dumps(HEADER).encode(), deep))


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b'"x"', b"1", b"{", b"\xff", b"{}x"])
def test_headers_and_claims_that_are_no_objects_are_refused(text: bytes) -> None:
    _refuses(sign_raw(text, json.dumps(CLAIMS).encode()))
    _refuses(sign_raw(json.dumps(HEADER).encode(), text))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    header=st.dictionaries(st.sampled_from([*HEADER, *REFUSED_HEADERS, "b64"]), _JSON),
    claims=st.dictionaries(st.sampled_from(list(CLAIMS)), _JSON),
)
def test_whatever_is_signed_the_answer_is_a_principal_or_a_refusal(
    header: dict[str, Any], claims: dict[str, Any]
) -> None:
    for token in (
        make_token({**HEADER, **header}),
        make_token(claims={**CLAIMS, **claims}),
        make_token({**HEADER, **header}, {**CLAIMS, **claims}),
    ):
        try:
            principal = VERIFIER.verify(token, NOW)
        except Unauthenticated:
            continue
        assert principal.subject


@given(st.text())
@example("ey.\ud800.x")
@example("é.é.é")
def test_any_text_that_is_no_token_is_refused(text: str) -> None:
    _refuses(text)


def test_wycheproof_vectors_are_all_refused() -> None:
    """None of them is EdDSA: an algorithm or key of another kind never gets in, valid or not."""
    if not WYCHEPROOF.exists():
        pytest.skip("the Wycheproof vectors are not beside this checkout (shared/data)")
    count = 0
    for group in json.loads(WYCHEPROOF.read_text())["testGroups"]:
        listed = group.get("public") or group["private"]
        verifier = TokenVerifier({"keys": [JWK, listed, {**JWK, "kid": listed.get("kid", "k2")}]})
        for vector in group["tests"]:
            with pytest.raises(Unauthenticated):
                verifier.verify(str(vector["jws"]), NOW)
            count += 1
    assert count > 300


@pytest.mark.parametrize(
    "changed",
    [
        {"kty": "oct"},
        {"crv": "X25519"},
        {"crv": "Ed448"},
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": 1},
        {"alg": "HS256"},
        {"kid": 1},
        {"x": 1},
        {"x": "AA"},
        {"x": "é"},
    ],
)
def test_keys_meant_for_something_else_are_not_used(changed: Mapping[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        TokenVerifier({"keys": [{**JWK, **changed}]})


@pytest.mark.parametrize("jwks", [{}, {"keys": []}, {"keys": None}, {"keys": ["x", 1, None]}])
def test_a_key_set_without_keys_is_refused(jwks: Mapping[str, object]) -> None:
    with pytest.raises(ValueError, match="no Ed25519"):
        TokenVerifier(jwks)
