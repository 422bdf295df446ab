"""Raw tensors in and out of gRPC messages without copying them through protobuf.

A protobuf message is a row of (tag, value) fields, and two messages put one after the other
are one message (protobuf encoding, "Last One Wins"). So the raw tensors of a request are cut out
as views on the received bytes before the small rest is parsed, and those of an answer are
appended to its serialised head. Cutting also counts: a message of millions of empty fields,
which would take forty times its size once parsed, is refused before it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.errors import InvalidInput

_LENGTH_DELIMITED = 2
_MAX_VARINT_BYTES = 10


def cut_field(message: bytes, number: int, max_fields: int) -> tuple[bytes, list[memoryview]]:
    """Return the message without its `bytes` fields of that number, and those fields' values.

    Only the outermost level is looked at. Raises InvalidInput when the message is cut off or
    not protobuf, or has more than max_fields fields.
    """
    view = memoryview(message)
    wanted = number << 3 | _LENGTH_DELIMITED
    found: list[memoryview] = []
    kept: list[memoryview] = []
    kept_from = at = count = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        stop = _end_of_value(message, tag, at)
        count += 1
        if count > max_fields:
            raise InvalidInput(f"the message has more than {max_fields} fields", field="body")
        if tag == wanted:
            _, at = _varint(message, at)
            found.append(view[at:stop])
            kept.append(view[kept_from:start])
            kept_from = stop
        at = stop
    if not found:
        return message, found
    kept.append(view[kept_from:])
    return b"".join(kept), found


def append_fields(head: bytes, number: int, values: Sequence[bytes | memoryview]) -> bytes:
    """Return a serialised message with `bytes` fields of that number put behind it."""
    tag = _encode_varint(number << 3 | _LENGTH_DELIMITED)
    parts: list[bytes | memoryview] = [head]
    for value in values:
        parts += (tag, _encode_varint(len(value)), value)
    return b"".join(parts)


def _end_of_value(message: bytes, tag: int, at: int) -> int:
    match tag & 7:
        case 0:  # varint
            _, stop = _varint(message, at)
        case 1:  # eight bytes
            stop = at + 8
        case 2:  # length and bytes
            size, at = _varint(message, at)
            stop = at + size
        case 5:  # four bytes
            stop = at + 4
        case _:
            raise InvalidInput("the message is not protobuf of this protocol", field="body")
    if stop > len(message):
        raise InvalidInput("the message is cut off", field="body")
    return stop


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in message[at : at + _MAX_VARINT_BYTES]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise InvalidInput("the message is cut off", field="body")


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
