"""Bent gRPC messages, as bytes, and calls that do not fit their method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from edge_runtime.protocol.proto import inference_pb2 as pb
from load.fuzz.seeds import Seed

METHODS: Final = (
    "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig",
    "ModelStatistics", "ModelInfer", "RepositoryIndex", "RepositoryModelLoad",
    "RepositoryModelUnload", "SystemSharedMemoryStatus", "Nope",
)  # fmt: skip
DIMS: Final = (0, 1, 2, -1, 2**31, 2**40, 2**62, -(2**63))
DATATYPES: Final = ("FP32", "INT8", "BYTES", "BOOL", "FP16", "BF16", "UINT64", "fp32", "FP8", "")
TEXTS: Final = ("", "x", "nope", "\x00", "ä€𝄞", "../..", "x" * 3000)
LATE_METADATA: Final = (
    ("prime-spark-timeout-ms", "0"),
    ("prime-spark-timeout-ms", "9" * 30),
    ("prime-spark-timeout-ms", "soon"),
    ("prime-spark-tier", "moon"),
    ("prime-spark-site", "x" * 3000),
    ("authorization", "Bearer x"),
    ("x-api-key", "ps_x"),
)


@dataclass(frozen=True, slots=True)
class GrpcAttack:
    """messages: one for a unary method; several are sent as a ModelStreamInfer."""

    kind: str
    method: str
    messages: tuple[bytes, ...]
    metadata: tuple[tuple[str, str], ...] = ()
    is_compressed: bool = False


Bend = Callable[[Random, pb.ModelInferRequest], bytes]


def grpc_attack(rng: Random, seeds: Sequence[Seed]) -> GrpcAttack:
    """Draw an attack."""
    roll = rng.random()
    if roll < 0.10:
        method = rng.choice(METHODS)
        junk = rng.choice([b"", rng.randbytes(20), _model_message(rng)])
        if method.startswith("RepositoryModel"):  # never unload what the other attacks ask
            junk = rng.randbytes(20)
        return GrpcAttack("grpc any method", method, (junk,))
    kind, message = _bent(rng, seeds)
    if roll < 0.25:
        messages = (message, *(_bent(rng, seeds)[1] for _ in range(rng.randint(1, 10))))
        return GrpcAttack("grpc stream", "ModelStreamInfer", messages)
    metadata = (rng.choice(LATE_METADATA),) if rng.random() < 0.1 else ()
    return GrpcAttack(f"grpc {kind}", "ModelInfer", (message,), metadata, rng.random() < 0.1)


def _bent(rng: Random, seeds: Sequence[Seed]) -> tuple[str, bytes]:
    kind = rng.choice(list(BENDS))
    return kind, BENDS[kind](rng, _request(rng.choice(seeds)))


def _request(seed: Seed) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=seed.model, id="fuzz")
    for tensor in seed.inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_input_contents.append(tensor.raw)
    return message


def _model_message(rng: Random) -> bytes:
    text = rng.choice(TEXTS)
    return pb.ModelMetadataRequest(name=text, version=rng.choice(TEXTS)).SerializeToString()


def _valid(rng: Random, message: pb.ModelInferRequest) -> bytes:
    return message.SerializeToString()


def _flipped(rng: Random, message: pb.ModelInferRequest) -> bytes:
    data = bytearray(message.SerializeToString())
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _cut(rng: Random, message: pb.ModelInferRequest) -> bytes:
    data = message.SerializeToString()
    return data[: rng.randrange(len(data))]


def _random(rng: Random, message: pb.ModelInferRequest) -> bytes:
    return rng.randbytes(rng.randint(0, 300))


def _claim(rng: Random, message: pb.ModelInferRequest) -> bytes:
    claims = (b"\xff\xff\xff\xff\x07", b"\x80\x80\x80\x80\x08", b"\xff" * 9 + b"\x01", b"\xff" * 12)
    return (
        message.SerializeToString() + rng.choice([b"\x3a", b"\x2a", b"\x0a"]) + rng.choice(claims)
    )


def _many(rng: Random, message: pb.ModelInferRequest) -> bytes:
    empty = rng.choice([b"\x2a\x00", b"\x32\x00", b"\x3a\x00", b"\x22\x00", b"\xf8\x07\x01"])
    return message.SerializeToString() + empty * rng.choice([10, 1000, 300_000])


def _nested(rng: Random, message: pb.ModelInferRequest) -> bytes:
    """Groups in groups, which this protocol has none of."""
    return message.SerializeToString() + b"\x0b" * rng.choice([1, 100, 100_000])


def _raw(rng: Random, message: pb.ModelInferRequest) -> bytes:
    chunk = rng.choice([b"", rng.randbytes(7), b"\xff\xff\xff\xff", bytes(100_000)])
    if rng.random() < 0.5:
        message.raw_input_contents.append(chunk)
    else:
        message.raw_input_contents[0] = chunk
    return message.SerializeToString()


def _typed(rng: Random, message: pb.ModelInferRequest) -> bytes:
    if rng.random() < 0.7:
        del message.raw_input_contents[:]
    contents = rng.choice(list(message.inputs)).contents
    contents.int_contents.extend([rng.choice([-1, 300, 2**31 - 1])] * rng.choice([1, 2, 1000]))
    if rng.random() < 0.3:
        contents.fp32_contents.extend([float("nan")] * 4)
    return message.SerializeToString()


def _shape(rng: Random, message: pb.ModelInferRequest) -> bytes:
    entry = rng.choice(list(message.inputs))
    del entry.shape[:]
    entry.shape.extend(rng.choice(DIMS) for _ in range(rng.randint(0, 40)))
    return message.SerializeToString()


def _datatype(rng: Random, message: pb.ModelInferRequest) -> bytes:
    rng.choice(list(message.inputs)).datatype = rng.choice(DATATYPES)
    return message.SerializeToString()


def _names(rng: Random, message: pb.ModelInferRequest) -> bytes:
    text = rng.choice(TEXTS)
    match rng.randrange(4):
        case 0:
            message.model_name = text
        case 1:
            message.model_version = text
        case 2:
            message.inputs[0].name = text
        case _:
            message.outputs.add(name=text).parameters["classification"].int64_param = -1
    return message.SerializeToString()


def _parameters(rng: Random, message: pb.ModelInferRequest) -> bytes:
    parameter = message.parameters[rng.choice(["timeout", "priority", "x"])]
    match rng.randrange(4):
        case 0:
            parameter.int64_param = rng.choice(DIMS)
        case 1:
            parameter.double_param = float("nan")
        case 2:
            parameter.string_param = rng.choice(TEXTS)
        case _:
            parameter.uint64_param = 2**64 - 1
    return message.SerializeToString()


BENDS: Final[Mapping[str, Bend]] = {
    "nothing bent": _valid,
    "bytes flipped": _flipped,
    "message cut": _cut,
    "random bytes": _random,
    "length claim": _claim,
    "many fields": _many,
    "groups": _nested,
    "raw contents": _raw,
    "typed contents": _typed,
    "shape": _shape,
    "datatype": _datatype,
    "names": _names,
    "parameters": _parameters,
}
