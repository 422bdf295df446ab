"""Bent REST requests, as the bytes that go over the wire.

`RestAttack.may_close`: the server may answer by hanging up, because the attack is on HTTP itself
or states a length that never comes.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, Final

from load.fuzz.seeds import Seed

BOMB_BYTES: Final = 128 * 1024 * 1024  # twice what a gateway takes by default
SIZES: Final = (0, 1, -1, 3, 2**31 - 1, 2**31, 2**32, 2**40, 2**63, 2**64, 10**30)
JUNK: Final[Sequence[Any]] = (
    None, True, False, 0, -1, 1.5, 2**63, 10**30, "", "x", "\x00", "ä€𝄞", [], {}, [[]], [None],
    {"a": {}}, [1, "a", None], "x" * 5000, ["x"] * 200, [[[[[[1]]]]]],
)  # fmt: skip
BAD_NUMBERS: Final = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "01", "0x1", "1_0", ".5")
BAD_TEXTS: Final = ('"\\ud800"', '"\\u0000"', '"\\x"', '"', "'a'", '"\t"', "\ufeff{}", "{,}")


@dataclass(frozen=True, slots=True)
class RestAttack:
    """kind: its name in the report."""

    kind: str
    request: bytes
    may_close: bool = False


@dataclass(slots=True)
class Draft:
    """A request under construction; stated_length None means the real one."""

    model: str
    document: dict[str, Any]
    chunks: bytes = b""
    method: str = "POST"
    path: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    stated_length: str | None = None
    may_close: bool = False

    def encode(self, host: str, credentials: Mapping[str, str]) -> bytes:
        header = json.dumps(self.document).encode()
        headers = {"host": host, **credentials}
        if self.chunks:
            headers["inference-header-content-length"] = str(len(header))
        headers |= self.headers
        body = header + self.chunks if self.body is None else self.body
        if "transfer-encoding" not in headers:
            headers["content-length"] = self.stated_length or str(len(body))
        path = self.path or f"/v2/models/{self.model}/infer"
        lines = [f"{self.method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


Bend = Callable[[Random, Draft], None]


def rest_attack(
    rng: Random, seeds: Sequence[Seed], host: str, credentials: Mapping[str, str]
) -> RestAttack:
    """Draw an attack."""
    seed = rng.choice(seeds)
    is_binary = rng.random() < 0.5
    document = seed.document(is_binary=is_binary)
    draft = Draft(seed.model, document, seed.chunks if is_binary else b"")
    kind = rng.choice(list(BENDS))
    BENDS[kind](rng, draft)
    return RestAttack(f"rest {kind}", draft.encode(host, credentials), draft.may_close)


def _valid(rng: Random, draft: Draft) -> None:
    """Nothing bent: the server must go on serving."""


def _any_value(rng: Random, draft: Draft) -> None:
    entry = rng.choice(draft.document["inputs"])
    place = rng.choice([draft.document, entry, entry.setdefault("parameters", {})])
    keys = [*place, "id", "shape", "data", "outputs", "binary_data_size", "timeout", "priority"]
    place[rng.choice(keys)] = rng.choice(JUNK)


def _no_key(rng: Random, draft: Draft) -> None:
    place = rng.choice([draft.document, rng.choice(draft.document["inputs"])])
    place.pop(rng.choice(list(place)))


def _flipped(rng: Random, draft: Draft) -> None:
    body = bytearray(json.dumps(draft.document).encode() + draft.chunks)
    for _ in range(rng.randint(1, 8)):
        body[rng.randrange(len(body))] = rng.randrange(256)
    draft.body = bytes(body)


def _cut(rng: Random, draft: Draft) -> None:
    body = json.dumps(draft.document).encode() + draft.chunks
    draft.body = body[: rng.randrange(len(body))]
    if draft.chunks:
        draft.headers["inference-header-content-length"] = str(len(body) - len(draft.chunks))


def _header_length(rng: Random, draft: Draft) -> None:
    value = rng.choice([*SIZES, rng.randint(0, 500), "", "x", "1.5", "+1", "1e3", " 7", "0x10"])
    draft.headers["inference-header-content-length"] = str(value)


def _binary_size(rng: Random, draft: Draft) -> None:
    entry = rng.choice(draft.document["inputs"])
    size = rng.choice([*SIZES, rng.randint(0, 64), "8", 8.0, True, None, [8]])
    entry["parameters"] = {"binary_data_size": size}
    entry.pop("data", None)


def _shape(rng: Random, draft: Draft) -> None:
    dims = [rng.choice([*SIZES, 2, 7, True, None, "2"]) for _ in range(rng.randint(0, 5))]
    rng.choice(draft.document["inputs"])["shape"] = rng.choice([dims, [1] * 40, [2**20, 0]])


def _datatype(rng: Random, draft: Draft) -> None:
    names = ["FP32", "INT8", "BYTES", "BOOL", "FP16", "BF16", "UINT64", "fp32", "FP8", "", None, 7]
    rng.choice(draft.document["inputs"])["datatype"] = rng.choice(names)


def _numbers(rng: Random, draft: Draft) -> None:
    draft.body = _with_token(draft, "data", f"[{rng.choice(BAD_NUMBERS)}]")


def _texts(rng: Random, draft: Draft) -> None:
    draft.body = _with_token(draft, rng.choice(["name", "id"]), rng.choice(BAD_TEXTS))


def _deep(rng: Random, draft: Draft) -> None:
    depth = rng.choice([100, 1000, 100_000])
    opened = rng.choice(["[", '{"a":', '{"inputs":['])
    draft.body = (opened * depth).encode()[:200_000]
    draft.chunks = b""


def _many(rng: Random, draft: Draft) -> None:
    many = draft.document["inputs"] * rng.choice([2, 100, 2000])
    draft.document[rng.choice(["inputs", "outputs"])] = many


def _bomb(rng: Random, draft: Draft) -> None:
    coding = rng.choice(["gzip", "deflate"])
    draft.body = _packed_zeros(coding)
    draft.headers["content-encoding"] = coding


def _coding(rng: Random, draft: Draft) -> None:
    packed = gzip.compress(json.dumps(draft.document).encode() + draft.chunks)
    bodies = [packed, packed[:-4], packed + b"x", packed[:11], b"", b"\x1f\x8b", b"\x78\x9c", None]
    draft.body = rng.choice(bodies)
    codings = ["gzip", "deflate", "br", "x-gzip", "gzip, gzip", "identity", "", "\x7f", "g" * 500]
    draft.headers["content-encoding"] = rng.choice(codings)
    draft.headers["accept-encoding"] = rng.choice(
        ["gzip", "deflate;q=x", "*;q=0", ",;=", "gzip;q=-1"]
    )


def _headers(rng: Random, draft: Draft) -> None:
    name = rng.choice(["prime-spark-timeout-ms", "prime-spark-tier", "prime-spark-site"])
    values = ["0", "-1", "1e3", "soon", "9" * 30, "edge,cloud", "ä", "x" * 3000, "", "1"]
    draft.headers[name] = rng.choice(values)


def _credentials(rng: Random, draft: Draft) -> None:
    values = ["", "Bearer", "Bearer x", "Bearer a.b.c", "Basic eDp5", "Bearer " + "x" * 9000, "ä"]
    draft.headers["authorization"] = rng.choice(values)
    if rng.random() < 0.3:
        draft.headers["x-api-key"] = rng.choice(["ps_x", "ps_" + "0" * 16, "ä", "x"])


def _route(rng: Random, draft: Draft) -> None:
    draft.method = rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
    name = rng.choice([draft.model, "nope", "%00", "%2e%2e", "%ff", "a%2Fb", "x" * 3000, "%", "{}"])
    tail = rng.choice(["", "/infer", "/ready", "/config", "/stats", "/versions/%00/infer", "/"])
    draft.path = f"/v2/models/{name}{tail}"


def _repository(rng: Random, draft: Draft) -> None:
    verb = rng.choice(["load", "unload"])
    draft.path = rng.choice(["/v2/repository/index", f"/v2/repository/models/no%00pe/{verb}"])
    draft.document = {"ready": rng.choice(JUNK), "parameters": rng.choice(JUNK)}
    draft.chunks = b""
    if rng.random() < 0.3:
        draft.body = rng.randbytes(rng.randint(0, 40))


def _claim(rng: Random, draft: Draft) -> None:
    draft.stated_length = rng.choice(["2147483648", "4294967296", "1" + "0" * 17])
    draft.body = b""
    draft.may_close = True


def _short_body(rng: Random, draft: Draft) -> None:
    body = json.dumps(draft.document).encode()
    draft.body = body[: rng.randrange(len(body))]
    draft.stated_length = str(len(body) + rng.randint(0, 1000))
    draft.may_close = True


def _chunked(rng: Random, draft: Draft) -> None:
    body = json.dumps(draft.document).encode()
    draft.headers["transfer-encoding"] = rng.choice(["chunked", "chunked, gzip", "x"])
    size = rng.choice([f"{len(body):x}", "ffffffffffffffff", "-1", "zz", "0", ""])
    draft.body = f"{size}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    draft.may_close = True


def _no_http(rng: Random, draft: Draft) -> None:
    draft.method = rng.choice(["", "G\x00T", "POST POST", "p" * 3000, "\xff\xff"])
    draft.may_close = True


@cache
def _packed_zeros(coding: str) -> bytes:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    return pack(bytes(BOMB_BYTES))


def _with_token(draft: Draft, key: str, token: str) -> bytes:
    """Return the JSON with a value of a key replaced by text that need not be JSON."""
    mark = "@@mark@@"
    place = draft.document if key == "id" else draft.document["inputs"][0]
    place[key] = mark
    place.pop("parameters", None)
    draft.chunks = b""
    return json.dumps(draft.document).replace(f'"{mark}"', token).encode()


BENDS: Final[Mapping[str, Bend]] = {
    "nothing bent": _valid,
    "any value": _any_value,
    "key missing": _no_key,
    "bytes flipped": _flipped,
    "body cut": _cut,
    "header length": _header_length,
    "binary size": _binary_size,
    "shape": _shape,
    "datatype": _datatype,
    "numbers": _numbers,
    "texts": _texts,
    "deep JSON": _deep,
    "many tensors": _many,
    "bomb": _bomb,
    "coding": _coding,
    "headers": _headers,
    "credentials": _credentials,
    "route": _route,
    "repository": _repository,
    "length claim": _claim,
    "body shorter than said": _short_body,
    "chunks": _chunked,
    "not HTTP": _no_http,
}
