"""A replica answers every call with a reply, whatever its model does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.engine import Engine, EngineOptions, ModelOptions, ModelSource
from edge_runtime.errors import InvalidInput, NotFound, PrimeSparkError
from edge_runtime.protocol.types import InferRequest, Tensor
from serve_apps.inference import answer
from serve_apps.wire import Call, decode_reply, encode_call, reported_load
from tests.edge_runtime.engine.gate import Floats, GateBackend
from tests.edge_runtime.engine.test_engine import ANYWHERE


def _call(value: float, version: str = "1") -> Call:
    tensor = Tensor("x", "FP32", np.array([[value]], dtype=np.float32))
    return encode_call(InferRequest("m", None, (tensor,)), version, 5.0, 0)


def _compute(x: Floats) -> Floats:
    if x[0, 0] == 13.0:
        raise InvalidInput("13 is not offered", field="x")
    if x[0, 0] == 14.0:
        raise RuntimeError("a bug")
    if x[0, 0] == 15.0:
        return np.array([[object()]])  # what no datatype can carry fails when it is packed
    return x * np.float32(2)


async def _engine() -> Engine:
    engine = Engine(
        EngineOptions(threads=1), {"gate": lambda artifact, options: GateBackend(_compute)}
    )
    await engine.load(ModelSource.of("m", "1", ANYWHERE, "gate", ModelOptions()))
    return engine


async def test_a_reply_has_outputs_and_the_load_beside_them() -> None:
    engine = await _engine()
    reply = await answer(engine, _call(3.0))
    assert decode_reply(reply).outputs[0].data.tolist() == [[6.0]]
    load, now = reported_load(reply), engine.load_of(("m", "1"))
    assert load is not None
    assert now is not None
    assert load == replace(now, idle_s=load.idle_s)
    assert load.idle_s <= now.idle_s
    assert 0.0 < reply.taken_s < 5.0
    await engine.close()


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (_call(13.0), InvalidInput, "13 is not offered"),
        (_call(1.0, version="2"), NotFound, "version '2' is not loaded"),
        (_call(14.0), PrimeSparkError, "'m' failed unexpectedly"),
        (_call(15.0), PrimeSparkError, "'m' failed unexpectedly"),
    ],
)
async def test_what_goes_wrong_comes_back_as_the_error_it_is(
    call: Call, kind: type[PrimeSparkError], text: str
) -> None:
    engine = await _engine()
    with pytest.raises(PrimeSparkError, match=text) as caught:
        decode_reply(await answer(engine, call))
    assert type(caught.value) is kind
    await engine.close()
