"""Writes a tiny database in the MaxMind DB format (file format specification, version 2.0).

A binary tree over the bits of an address, 24 bits a record, then the data it points to, then the
metadata. IPv4 networks lie below ::/96 of the tree.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MARKER = b"\xab\xcd\xefMaxMind.com"


def write(path: Path, networks: Mapping[str, Any]) -> None:
    """Write a database of networks (`192.0.2.0/24`) and what is said of each."""
    nodes: list[list[int | None]] = [[None, None]]
    data = b""
    leaves: list[tuple[int, int, int]] = []
    for text, record in networks.items():
        network = ipaddress.ip_network(text)
        whole = int(network.network_address)
        length = network.prefixlen + (96 if network.version == 4 else 0)
        at = 0
        for depth in range(length):
            side = (whole >> (127 - depth)) & 1
            if depth == length - 1:
                leaves.append((at, side, len(data)))
                break
            below = nodes[at][side]
            if below is None:
                nodes.append([None, None])
                below = nodes[at][side] = len(nodes) - 1
            at = below
        data += _value(record)
    count = len(nodes)
    for at, side, offset in leaves:
        nodes[at][side] = count + 16 + offset
    tree = b"".join(
        (count if record is None else record).to_bytes(3, "big")
        for node in nodes
        for record in node
    )
    metadata = {
        "node_count": count,
        "record_size": 24,
        "ip_version": 6,
        "database_type": "Test-City",
        "languages": [],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": 1_700_000_000,
        "description": {"en": "of a test"},
    }
    staged = path.with_suffix(".new")
    staged.write_bytes(tree + bytes(16) + data + _MARKER + _value(metadata))
    staged.replace(path)


def _value(value: Any) -> bytes:
    match value:
        case str():
            content = value.encode()
            return _control(2, len(content)) + content
        case float():
            return _control(3, 8) + struct.pack(">d", value)
        case int():
            content = value.to_bytes(4, "big")
            return _control(6, 4) + content
        case dict():
            pairs = b"".join(_value(name) + _value(each) for name, each in value.items())
            return _control(7, len(value)) + pairs
        case list():
            return _control(11, len(value)) + b"".join(map(_value, value))
    raise TypeError(value)


def _control(kind: int, size: int) -> bytes:
    assert size < 29  # longer ones are written another way
    return bytes([kind << 5 | size]) if kind < 8 else bytes([size, kind - 7])
