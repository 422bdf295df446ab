"""What opens the door, and how long the authenticator remembers it."""

from __future__ import annotations

import pytest

from edge_runtime.auth import CACHE_ENTRIES, CACHE_S, LEEWAY_S, Authenticator, Principal
from edge_runtime.errors import Forbidden, Unauthenticated
from tests.clock import Clock
from tests.edge_runtime.tokens import CLAIMS, NOW, VERIFIER
from tests.edge_runtime.tokens import token as make_token


class _Keys:
    """Two API keys; `known` is changed by tests as an administrator would."""

    def __init__(self) -> None:
        self.known = {"ps_a": Principal("a", frozenset({"infer"}))}
        self.asked = 0

    def verify(self, key: str, now: float) -> Principal | None:
        self.asked += 1
        return self.known.get(key)


@pytest.fixture
def keys() -> _Keys:
    return _Keys()


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def authenticator(keys: _Keys, clock: Clock) -> Authenticator:
    return Authenticator(VERIFIER, keys, clock)


def test_a_token_and_an_api_key_both_open_the_door(authenticator: Authenticator) -> None:
    assert authenticator.authenticate(f"Bearer {make_token()}").subject == "ada"
    assert authenticator.authenticate(f"bearer  {make_token()} ").subject == "ada"
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


def test_without_a_key_store_api_keys_are_refused(clock: Clock) -> None:
    with pytest.raises(Unauthenticated):
        Authenticator(VERIFIER, None, clock).authenticate(None, "ps_a")


def test_a_revoked_key_is_refused_once_the_memory_of_it_is_over(
    authenticator: Authenticator, keys: _Keys, clock: Clock
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
    authenticator: Authenticator, clock: Clock
) -> None:
    header = f"Bearer {make_token(claims={**CLAIMS, 'exp': NOW + 1})}"
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
