"""Reading bodies: no claim and no coding makes the server hold more than it may."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from edge_runtime.errors import InvalidInput, Overloaded, PrimeSparkError, TooLarge, Unsupported
from edge_runtime.protocol.body import ByteBudget, pack, read_body
from edge_runtime.protocol.service import Limits

MIB = 1024 * 1024
LIMITS = Limits(max_body_bytes=MIB, max_inflight_bytes=2 * MIB, body_timeout_s=0.2)


def request(
    chunks: Sequence[bytes], headers: dict[str, str], *, is_complete: bool = True
) -> Request:
    """A request whose body arrives in chunks; an incomplete one never ends."""
    waiting = list(chunks)

    async def receive() -> dict[str, object]:
        if not waiting and not is_complete:
            await asyncio.Event().wait()
        chunk = waiting.pop(0) if waiting else b""
        return {
            "type": "http.request",
            "body": chunk,
            "more_body": bool(waiting) or not is_complete,
        }

    pairs = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": pairs}, receive)


async def read(
    chunks: Sequence[bytes],
    headers: dict[str, str] | None = None,
    budget: ByteBudget | None = None,
    *,
    is_complete: bool = True,
) -> bytes:
    asked = request(chunks, headers or {}, is_complete=is_complete)
    with (budget or ByteBudget(LIMITS.max_inflight_bytes)).lease() as lease:
        return await read_body(asked.receive, asked.headers, LIMITS, lease)


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw deflate": raw_deflate,
}


async def test_chunks_are_put_together() -> None:
    assert await read([b"a", b"", b"bc"]) == b"abc"
    assert await read([]) == b""


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("size", [0, 1, 1000, 300_000])
async def test_packed_bodies_are_unpacked(name: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    packed = PACKERS[name](body[:size])
    coding = {"content-encoding": name.split()[-1]}
    assert await read([packed[:7], packed[7:]], coding) == body[:size]


@pytest.mark.parametrize("stated", [str(MIB + 1), "2147483648", "9" * 40])
async def test_a_claim_over_the_limit_is_refused_before_a_byte_is_read(stated: str) -> None:
    with pytest.raises(TooLarge):
        await read([], {"content-length": stated}, is_complete=False)


@pytest.mark.parametrize("stated", ["-1", "1.5", "", "+3", "0x3", "³"])
async def test_a_length_that_is_no_number_is_refused(stated: str) -> None:
    with pytest.raises(InvalidInput):
        await read([b"abc"], {"content-length": stated})


async def test_a_body_that_says_nothing_of_its_length_is_cut_at_the_limit() -> None:
    with pytest.raises(TooLarge):
        await read([bytes(MIB // 2)] * 3)


async def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    with pytest.raises(InvalidInput, match="did not arrive"):
        await read([b"a"], {"content-length": "10"}, is_complete=False)


@pytest.mark.parametrize("name", PACKERS)
async def test_a_bomb_is_refused_without_being_unpacked(name: str) -> None:
    bomb = PACKERS[name](bytes(200 * MIB))
    assert len(bomb) < MIB
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            await read([bomb], {"content-encoding": name.split()[-1]})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MIB


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "gzip,deflate", "\x00", "g" * 1000])
async def test_codings_that_are_not_offered_are_refused(coding: str) -> None:
    with pytest.raises(Unsupported):
        await read([b"abc"], {"content-encoding": coding})


@pytest.mark.parametrize("name", ["gzip", "deflate", "raw deflate"])
async def test_a_packed_body_cut_off_or_followed_by_more_is_refused(name: str) -> None:
    packed = PACKERS[name](b"abc" * 100)
    for bent in (packed[:-5], packed + b"x", packed[:5]):
        with pytest.raises(InvalidInput):
            await read([bent], {"content-encoding": name.split()[-1]})


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_in_a_coding_are_unpacked_or_refused(body: bytes, coding: str) -> None:
    async def attempt() -> bytes | None:
        try:
            return await read([body], {"content-encoding": coding})
        except PrimeSparkError:
            return None

    found = asyncio.run(attempt())
    assert found is None or len(found) <= MIB


async def test_memory_set_aside_is_bounded_and_given_back() -> None:
    budget = ByteBudget(1000)
    assert await read([bytes(900)], budget=budget) == bytes(900)
    assert budget.used == 0
    with budget.lease() as other:
        other.grow_to(500)
        with pytest.raises(Overloaded):
            await read([bytes(900)], budget=budget)
        assert budget.used == 500
    assert budget.used == 0


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("gzip;q=0.1, deflate;q=0.9", "deflate"),
        ("GZIP ; q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=nan", None),
        ("gzip;q=x", None),
        ("gzip;q=0.2, identity;q=0.8", None),
        ("br, zstd", None),
        (",,;;=,", None),
    ],
)
async def test_answers_are_packed_as_the_client_likes(
    accept: str | None, coding: str | None
) -> None:
    body = b"abc" * 1000
    packed, chosen = await pack(body, accept)
    assert chosen == coding
    match chosen:
        case "gzip":
            packed = gzip.decompress(packed)
        case "deflate":
            packed = zlib.decompress(packed)
    assert packed == body
