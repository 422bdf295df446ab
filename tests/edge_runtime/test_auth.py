"""Who gets in: every attack of RFC 8725 on the verifier, and what the authenticator remembers."""

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
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge_runtime.auth import (
    CACHE_ENTRIES,
    CACHE_S,
    LEEWAY_S,
    MAX_TOKEN_BYTES,
    REFUSED_HEADERS,
    REQUIRED_CLAIMS,
    Authenticator,
    Principal,
    TokenVerifier,
)
from edge_runtime.errors import Forbidden, Unauthenticated

WYCHEPROOF = (
    Path(__file__).parents[3] / "shared" / "data" / "wycheproof" / "json_web_signature_test.json"
)
NOW = 1_700_000_000.0
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


JWK: Mapping[str, object] = {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": _b64(PUBLIC)}
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


def _sign_raw(header: bytes, claims: bytes, key: Ed25519PrivateKey = KEY) -> str:
    signed = f"{_b64(header)}.{_b64(claims)}"
    return f"{signed}.{_b64(key.sign(signed.encode()))}"


def _token(
    header: Mapping[str, object] = HEADER,
    claims: Mapping[str, object] = CLAIMS,
    key: Ed25519PrivateKey = KEY,
) -> str:
    return _sign_raw(json.dumps(header).encode(), json.dumps(claims).encode(), key)


def _refuses(token: str, match: str | None = None, now: float = NOW) -> None:
    with pytest.raises(Unauthenticated, match=match):
        VERIFIER.verify(token, now)


def test_a_good_token_says_who_calls_and_what_is_allowed() -> None:
    claims = {**CLAIMS, "tenant": "acme", "kind": "device", "aud": ["x", "prime-spark"]}
    assert VERIFIER.verify(_token(claims=claims), NOW) == Principal(
        "ada", frozenset({"infer", "metrics:read"}), "acme", "device"
    )


def test_a_token_of_another_library_is_accepted() -> None:
    token = jwt.encode(CLAIMS, KEY, "EdDSA", headers={"kid": "k1", "typ": "at+jwt"})
    assert VERIFIER.verify(token, NOW).subject == "ada"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS256", "ES256", "RS256", "eddsa", "", 1])
def test_no_other_algorithm_is_taken_from_the_header(alg: object) -> None:
    _refuses(_token({**HEADER, "alg": alg}))


def test_an_unsigned_token_is_refused() -> None:
    header, claims = json.dumps({**HEADER, "alg": "none"}), json.dumps(CLAIMS)
    _refuses(f"{_b64(header.encode())}.{_b64(claims.encode())}.")


@pytest.mark.parametrize("alg", ["HS256", "EdDSA"])
@pytest.mark.parametrize("secret", [PUBLIC, str(JWK["x"]).encode(), json.dumps(JWK).encode(), b""])
def test_the_public_key_is_no_shared_secret(alg: str, secret: bytes) -> None:
    header = _b64(json.dumps({**HEADER, "alg": alg}).encode())
    signed = f"{header}.{_b64(json.dumps(CLAIMS).encode())}"
    _refuses(f"{signed}.{_b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}")


@pytest.mark.parametrize("name", REFUSED_HEADERS)
def test_headers_that_bring_their_own_key_or_rules_are_refused(name: str) -> None:
    other = OTHER_KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    value = {"jwk": {**JWK, "x": _b64(other)}, "crit": ["exp"], "x5c": ["MIIB"]}
    header = {**HEADER, name: value.get(name, "https://attacker.example/keys")}
    _refuses(_token(header, key=OTHER_KEY))
    _refuses(_token(header), match=f"may not carry '{name}'|header cannot be read")


@pytest.mark.parametrize("kid", ["k2", "", None, 1, ["k1"], {"k1": 1}, "../k1", "k1\x00"])
def test_a_key_that_is_not_known_here_is_refused(kid: object) -> None:
    _refuses(_token({**HEADER, "kid": kid}))


def test_a_token_without_a_key_name_is_refused() -> None:
    _refuses(_token({"alg": "EdDSA", "typ": "at+jwt"}))


def test_a_signature_by_another_key_or_over_other_bytes_is_refused() -> None:
    _refuses(_token(key=OTHER_KEY), match="signature")
    header, claims, signature = _token().split(".")
    changed = _b64(json.dumps({**CLAIMS, "scope": "admin"}).encode())
    _refuses(f"{header}.{changed}.{signature}", match="signature")
    for bad in (signature[:-2], signature + "AA", "A" * len(signature), _b64(bytes(64)), "AA"):
        _refuses(f"{header}.{claims}.{bad}")


@pytest.mark.parametrize("typ", ["JWT", "jwt", "", "id+jwt", "dpop+jwt", None, 1])
def test_a_token_made_for_something_else_is_refused(typ: object) -> None:
    _refuses(_token({**HEADER, "typ": typ}), match="access token|header cannot be read")


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
    _refuses(_token(claims={**CLAIMS, **changed}), match="somebody else")


@pytest.mark.parametrize("name", REQUIRED_CLAIMS)
def test_every_claim_is_required(name: str) -> None:
    claims = {key: value for key, value in CLAIMS.items() if key != name}
    _refuses(_token(claims=claims), match=f"lacks the claim '{name}'")


def test_a_token_holds_between_its_times_with_leeway_for_clocks() -> None:
    token = _token()
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
    _refuses(_token(claims={**CLAIMS, claim: value}))


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_times_outside_of_json_are_refused(literal: bytes) -> None:
    claims = json.dumps({**CLAIMS, "exp": 0}).encode().replace(b'"exp": 0', b'"exp": ' + literal)
    _refuses(_sign_raw(json.dumps(HEADER).encode(), claims))


@pytest.mark.parametrize("changed", [{"sub": ""}, {"sub": 1}, {"scope": ["admin"]}, {"scope": 1}])
def test_a_subject_and_scopes_are_text(changed: Mapping[str, object]) -> None:
    _refuses(_token(claims={**CLAIMS, **changed}))


def test_other_spellings_of_the_same_bytes_are_refused() -> None:
    header, claims, signature = _token().split(".")
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
    token = _token()
    for bad in ("", ".", "..", "...", f"{token}.", f".{token}", f"{token}.{token}", token[:-90]):
        _refuses(bad)
    encrypted = ".".join([*token.split("."), "AA", "AA"])
    _refuses(encrypted, match="not a JWT")


def test_a_huge_token_is_refused_before_it_is_decoded() -> None:
    _refuses("A" * (MAX_TOKEN_BYTES + 1), match="longer than")
    _refuses(_token(claims={**CLAIMS, "x": "y" * MAX_TOKEN_BYTES}), match="longer than")


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deeply_nested_json_is_refused(opening: bytes) -> None:
    deep = opening * (4000 // len(opening))
    _refuses(_sign_raw(deep, json.dumps(CLAIMS).encode()))
    _refuses(_sign_raw(json.dumps(HEADER).encode(), deep))


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b'"x"', b"1", b"{", b"\xff", b"{}x"])
def test_headers_and_claims_that_are_no_objects_are_refused(text: bytes) -> None:
    _refuses(_sign_raw(text, json.dumps(CLAIMS).encode()))
    _refuses(_sign_raw(json.dumps(HEADER).encode(), text))


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
        _token({**HEADER, **header}),
        _token(claims={**CLAIMS, **claims}),
        _token({**HEADER, **header}, {**CLAIMS, **claims}),
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


class _Keys:
    """Two API keys; `known` is changed by tests as an administrator would."""

    def __init__(self) -> None:
        self.known = {"ps_a": Principal("a", frozenset({"infer"}))}
        self.asked = 0

    def verify(self, key: str, now: float) -> Principal | None:
        self.asked += 1
        return self.known.get(key)


class _Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def keys() -> _Keys:
    return _Keys()


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def authenticator(keys: _Keys, clock: _Clock) -> Authenticator:
    return Authenticator(VERIFIER, keys, clock)


def test_a_token_and_an_api_key_both_open_the_door(authenticator: Authenticator) -> None:
    assert authenticator.authenticate(f"Bearer {_token()}").subject == "ada"
    assert authenticator.authenticate(f"bearer  {_token()} ").subject == "ada"
    assert authenticator.authenticate("Bearer ps_a").subject == "a"
    assert authenticator.authenticate(None, "ps_a").subject == "a"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "ps_a",
        "Bearer ps_b",
        "Bearer \ud800",
    ],
)
def test_without_a_credential_that_holds_nobody_gets_in(
    authenticator: Authenticator, header: str | None
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        authenticator.authenticate(header)
    assert "prime-spark token" in str(refused.value.hint)


def test_without_a_key_store_api_keys_are_refused(clock: _Clock) -> None:
    with pytest.raises(Unauthenticated):
        Authenticator(VERIFIER, None, clock).authenticate(None, "ps_a")


def test_a_revoked_key_is_refused_once_the_memory_of_it_is_over(
    authenticator: Authenticator, keys: _Keys, clock: _Clock
) -> None:
    authenticator.authenticate(None, "ps_a")
    authenticator.authenticate(None, "ps_a")
    assert keys.asked == 1
    keys.known.clear()
    clock.now += CACHE_S
    with pytest.raises(Unauthenticated):
        authenticator.authenticate(None, "ps_a")


def test_forgetting_makes_a_revocation_hold_at_once(
    authenticator: Authenticator, keys: _Keys
) -> None:
    authenticator.authenticate(None, "ps_a")
    keys.known.clear()
    authenticator.forget()
    with pytest.raises(Unauthenticated):
        authenticator.authenticate(None, "ps_a")


def test_an_expired_token_is_refused_though_it_was_remembered(
    authenticator: Authenticator, clock: _Clock
) -> None:
    header = f"Bearer {_token(claims={**CLAIMS, 'exp': NOW + 1})}"
    authenticator.authenticate(header)
    clock.now = NOW + 1 + LEEWAY_S - 0.5
    authenticator.authenticate(header)
    clock.now += 0.5
    with pytest.raises(Unauthenticated):
        authenticator.authenticate(header)


def test_a_refusal_is_not_remembered(authenticator: Authenticator, keys: _Keys) -> None:
    with pytest.raises(Unauthenticated):
        authenticator.authenticate(None, "ps_new")
    keys.known["ps_new"] = Principal("new", frozenset())
    assert authenticator.authenticate(None, "ps_new").subject == "new"


def test_the_memory_is_bounded(authenticator: Authenticator, keys: _Keys) -> None:
    for number in range(CACHE_ENTRIES + 1):
        keys.known[f"ps_{number}"] = Principal("x", frozenset())
        authenticator.authenticate(None, f"ps_{number}")
    asked = keys.asked
    authenticator.authenticate(None, f"ps_{CACHE_ENTRIES}")
    assert keys.asked == asked
    authenticator.authenticate(None, "ps_0")
    assert keys.asked == asked + 1


def test_a_scope_is_needed_and_admin_has_them_all() -> None:
    Principal("a", frozenset({"infer"})).require("infer")
    Principal("a", frozenset({"admin"})).require("infer")
    with pytest.raises(Forbidden, match="'metrics:read' is missing"):
        Principal("a", frozenset({"infer"})).require("metrics:read")
