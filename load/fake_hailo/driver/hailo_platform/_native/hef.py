"""Reads the fake's HEF files; `load/fake_hailo/hef.py` writes them.

The magic number of real ones, then big-endian: version (4 bytes), length of the description
(4), length of the model (8), SHA-256 over both; then the description (JSON) and the model
(ONNX). A file is tied to a chip and to the compiler's version, as real ones are.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .enums import FormatOrder
from .statuses import Status, failed

MAGIC = b"\x01HEF"
VERSION = 1
_HEADER = struct.Struct(">4sIIQ32s")


@dataclass(frozen=True)
class Stream:
    """One input or output: NHWC on the device, the model's tensor of `rank` dimensions inside."""

    name: str
    tensor: str
    rank: int
    shape: tuple[int, int, int]
    scale: float
    zero_point: float
    is_nms: bool
    order: FormatOrder = FormatOrder.NHWC

    @property
    def elements(self) -> int:
        """Elements in a frame."""
        height, width, channels = self.shape
        return height * width * channels


@dataclass(frozen=True)
class Hef:
    """One compiled network."""

    network: str
    architecture: str
    compiler_version: str
    inputs: tuple[Stream, ...]
    outputs: tuple[Stream, ...]
    model: bytes


def read_file(path: str) -> Hef:
    """Read a file by its path."""
    try:
        data = Path(path).read_bytes()
    except OSError:
        raise failed(Status.OPEN_FILE_FAILURE) from None
    return parse(data)


def parse(data: bytes) -> Hef:
    """Read a file's bytes: 26 is none, 91 is damaged, 92 is of a kind that we do not know."""
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise failed(Status.INVALID_HEF)
    _, version, text_size, model_size, digest = _HEADER.unpack_from(data)
    if version != VERSION:
        raise failed(Status.HEF_NOT_SUPPORTED)
    body = data[_HEADER.size :]
    if len(body) != text_size + model_size or hashlib.sha256(body).digest() != digest:
        raise failed(Status.HEF_FILE_CORRUPTED)
    text: dict[str, Any] = json.loads(body[:text_size])
    return Hef(
        text["network"],
        text["architecture"],
        text["compiler_version"],
        tuple(_stream(stream) for stream in text["inputs"]),
        tuple(_stream(stream) for stream in text["outputs"]),
        body[text_size:],
    )


def check(hef: Hef, architecture: str, library_version: str) -> None:
    """Refuse what this chip (93) or this library (92) cannot run.

    The compiler's 3.33 goes with the library's 4.23, 3.32 with 4.22; an older file runs on a
    newer library. From 5 on the two have the same numbers.
    """
    if hef.architecture.lower() != architecture.lower():
        raise failed(Status.HEF_NOT_COMPATIBLE_WITH_DEVICE)
    major, minor = _major_minor(hef.compiler_version)
    if major == 3:
        major, minor = 4, minor - 10
    newest_major, newest_minor = _major_minor(library_version)
    if major != newest_major or minor > newest_minor:
        raise failed(Status.HEF_NOT_SUPPORTED)


def _major_minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _stream(text: dict[str, Any]) -> Stream:
    height, width, channels = text["shape"]
    return Stream(
        text["name"],
        text["tensor"],
        text["rank"],
        (height, width, channels),
        text["scale"],
        text["zero_point"],
        text["is_nms"],
        FormatOrder[text["order"]],
    )
