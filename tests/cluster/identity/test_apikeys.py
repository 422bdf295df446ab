"""API keys: shown once, kept as digests, revocable."""

from __future__ import annotations

import math
import re
import string
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.identity.apikeys import ApiKeyStore
from edge_runtime.auth import Authenticator, Principal, TokenVerifier
from edge_runtime.errors import Corrupt, InvalidInput, NotFound, Unauthenticated
from tests.children import race
from tests.edge_runtime.tokens import JWK

NOW = 1_700_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "identity" / "api-keys.sqlite"


@pytest.fixture
def store(path: Path) -> ApiKeyStore:
    return ApiKeyStore(path)


def test_without_a_file_there_are_no_keys_and_none_is_made(store: ApiKeyStore, path: Path) -> None:
    text = ApiKeyStore(path.with_name("other")).create("a", ["infer"], NOW).text
    assert store.verify(text, NOW) is None
    assert store.list() == ()
    with pytest.raises(NotFound):
        store.revoke("0" * 16, NOW)
    assert not path.exists()


def test_a_key_opens_the_door_for_whom_it_was_made(store: ApiKeyStore, path: Path) -> None:
    text, record = store.create("ci", ["models:write", "infer"], NOW, tenant="acme")
    expected = Principal("ci", frozenset({"infer", "models:write"}), "acme", "service")
    assert store.verify(text, NOW + 1e9) == expected
    assert ApiKeyStore(path).verify(text, NOW) == expected
    assert store.list() == (record,)
    authenticator = Authenticator(TokenVerifier({"keys": [JWK]}), store, lambda: NOW)
    assert authenticator.authenticate(f"Bearer {text}") == expected
    with pytest.raises(Unauthenticated):
        authenticator.authenticate(None, text[:-1] + ("0" if text[-1] != "0" else "1"))


def test_a_key_has_the_form_that_scanners_look_for(store: ApiKeyStore) -> None:
    text, record = store.create("ci", ["infer"], NOW)
    assert re.fullmatch(r"ps_[0-9a-f]{16}_[0-9A-Za-z]{49}", text)
    assert text.split("_")[1] == record.id


def test_the_key_itself_is_not_kept(store: ApiKeyStore, path: Path) -> None:
    text, _ = store.create("ci", ["infer"], NOW)
    secret = text.split("_")[2][:43].encode()
    kept = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"ci" in kept
    assert secret not in kept
    assert all(file.stat().st_mode & 0o077 == 0 for file in path.parent.iterdir())


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_other_text_is_not_a_key(store: ApiKeyStore, data: st.DataObject) -> None:
    text, _ = store.create("ci", ["infer"], NOW)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters()) + text[at + 1 :]
    assert (store.verify(changed, NOW) is None) == (changed != text)
    assert store.verify(data.draw(st.text()), NOW) is None


def test_a_right_checksum_does_not_make_a_key(store: ApiKeyStore, path: Path) -> None:
    elsewhere = ApiKeyStore(path.with_name("other"))
    store.create("ci", ["infer"], NOW)
    assert store.verify(elsewhere.create("ci", ["admin"], NOW).text, NOW) is None


def test_knowing_the_id_and_the_form_is_not_enough(store: ApiKeyStore) -> None:
    _, record = store.create("ci", ["infer"], NOW)
    alphabet = string.digits + string.ascii_uppercase + string.ascii_lowercase
    guess, checksum = f"ps_{record.id}_{'a' * 43}", ""
    left = zlib.crc32(guess.encode())
    for _ in range(6):
        checksum, left = alphabet[left % 62] + checksum, left // 62
    assert store.verify(guess + checksum, NOW) is None


def test_a_key_ends_with_its_life(store: ApiKeyStore) -> None:
    text, _ = store.create("ci", ["infer"], NOW, ttl_s=60)
    found = store.verify(text, NOW + 59.9)
    assert found is not None
    assert found.expires_at == NOW + 60
    assert store.verify(text, NOW + 60) is None


def test_a_revoked_key_is_refused_by_every_store_at_once(store: ApiKeyStore, path: Path) -> None:
    other, (text, record) = ApiKeyStore(path), store.create("ci", ["infer"], NOW)
    kept = store.create("ci", ["infer"], NOW).text
    assert other.verify(text, NOW) is not None
    store.revoke(record.id, NOW + 1)
    store.revoke(record.id, NOW + 2)
    assert other.verify(text, NOW) is None
    assert other.verify(kept, NOW) is not None
    assert [key.revoked_at for key in store.list() if key.id == record.id] == [NOW + 1]


@pytest.mark.parametrize("key_id", ["", "0" * 16, "%", "\ud800", "ä"])
def test_revoking_a_key_that_is_not_there_is_not_found(store: ApiKeyStore, key_id: str) -> None:
    store.create("ci", ["infer"], NOW)
    with pytest.raises(NotFound):
        store.revoke(key_id, NOW)


def test_what_no_key_can_be_is_refused(store: ApiKeyStore) -> None:
    for subject, scopes, ttl_s in (
        ("", ["infer"], None),
        ("a\nb", ["infer"], None),
        ("ci", [], None),
        ("ci", ["everything"], None),
        ("ci", ["infer"], 0),
        ("ci", ["infer"], math.nan),
        ("ci", ["infer"], math.inf),
    ):
        with pytest.raises(InvalidInput):
            store.create(subject, scopes, NOW, ttl_s)
    assert store.list() == ()


def test_processes_and_threads_make_keys_side_by_side(path: Path) -> None:
    def work(number: int) -> list[str]:
        store = ApiKeyStore(path)
        with ThreadPoolExecutor(4) as pool:
            keys = list(pool.map(lambda _: store.create(str(number), ["infer"], NOW), range(8)))
        return [key.text for key in keys]

    made = race(4, work)
    store = ApiKeyStore(path)
    assert len(store.list()) == 32
    for number, keys in enumerate(made):
        for key in keys:
            found = store.verify(key, NOW)
            assert found is not None
            assert found.subject == str(number)


def test_a_damaged_file_is_said_to_be_damaged(store: ApiKeyStore, path: Path) -> None:
    text, _ = store.create("ci", ["infer"], NOW)
    for file in path.parent.iterdir():
        file.write_bytes(b"x" * 5000)
    with pytest.raises(Corrupt):
        ApiKeyStore(path).verify(text, NOW)
