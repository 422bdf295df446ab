"""Sending attacks: one connection each, which is made again when the server closes it.

An outcome is a status in words: `400`, `INVALID_ARGUMENT`, `closed` (hung up without an answer)
or `hang` (nothing within the patience).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import grpc
import grpc.aio

from load.fuzz.grpc_attacks import GrpcAttack
from load.fuzz.rest_attacks import RestAttack

HANG: Final = "hang"
CLOSED: Final = "closed"
_SERVICE: Final = "/inference.GRPCInferenceService"


class RestSender:
    """One HTTP connection over which attacks go as bytes."""

    def __init__(self, host: str, port: int, patience_s: float) -> None:
        self._host = host
        self._port = port
        self._patience_s = patience_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, attack: RestAttack) -> str:
        """Return the outcome."""
        was_open = self._streams is not None
        try:
            async with asyncio.timeout(self._patience_s):
                status = await self._attempt(attack)
                if status == CLOSED and was_open:  # it may have been closed before we sent
                    status = await self._attempt(attack)
        except TimeoutError:
            await self.close()
            return HANG
        return status

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _attempt(self, attack: RestAttack) -> str:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        try:
            writer.write(attack.request)
            if attack.may_close:
                writer.write_eof()
            await writer.drain()
        except OSError:
            pass  # it may have answered before it hung up
        try:
            status, is_kept = await _read_answer(reader)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            status, is_kept = CLOSED, False
        if attack.may_close or not is_kept:
            await self.close()
        return status


async def _read_answer(reader: asyncio.StreamReader) -> tuple[str, bool]:
    """Return the status, and whether the connection can go on being used."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = head[0].split()[1]
    if status == "100":
        return await _read_answer(reader)
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
    }
    length = headers.get("content-length")
    if length is None:
        return status, False
    await reader.readexactly(int(length))
    return status, headers.get("connection", "").lower() != "close"


class GrpcSender:
    """One gRPC channel."""

    def __init__(self, address: str, credentials: Mapping[str, str], patience_s: float) -> None:
        self._credentials = tuple(credentials.items())
        self._patience_s = patience_s
        self._channel = grpc.aio.insecure_channel(
            address, options=(("grpc.use_local_subchannel_pool", 1),)
        )

    async def send(self, attack: GrpcAttack) -> str:
        """Return the outcome; of a stream the number of answers has to fit too."""
        replaced = {name for name, _ in attack.metadata}
        kept = tuple(pair for pair in self._credentials if pair[0] not in replaced)
        metadata = (*kept, *attack.metadata)
        began = time.monotonic()
        try:
            if attack.method == "ModelStreamInfer":
                return await self._stream(attack, metadata)
            call = self._channel.unary_unary(f"{_SERVICE}/{attack.method}")
            coding = grpc.Compression.Gzip if attack.is_compressed else None
            await call(
                attack.messages[0],
                metadata=metadata,
                timeout=self._patience_s,
                compression=coding,
            )
        except grpc.aio.AioRpcError as error:
            if time.monotonic() - began >= self._patience_s:
                return HANG
            return str(error.code().name)
        return "OK"

    async def close(self) -> None:
        await self._channel.close()

    async def _stream(self, attack: GrpcAttack, metadata: Any) -> str:
        async def messages() -> AsyncIterator[bytes]:
            for message in attack.messages:
                yield message

        call = self._channel.stream_stream(f"{_SERVICE}/ModelStreamInfer")
        answers = 0
        async for _ in call(messages(), metadata=metadata, timeout=self._patience_s):
            answers += 1
        return "OK" if answers == len(attack.messages) else "UNANSWERED"
