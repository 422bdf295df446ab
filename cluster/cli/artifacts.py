"""How model files are named on the command line: `FILE`, `onnx-int8=FILE`, `hef/hailo8=FILE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_runtime.errors import InvalidInput, NotFound

BY_SUFFIX: Final = {".onnx": "onnx", ".hef": "hef"}
HELP: Final = "ONNX or HEF files; a prefix says what it is: onnx-int8=FILE, hef/hailo8=FILE."


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file and what it is. target: the hardware that it was compiled for, if any."""

    format: str
    path: Path
    target: str


def read_file(text: str) -> NamedFile:
    """Read one argument. Raises InvalidInput when it is not clear what it is, NotFound."""
    kind, equals, rest = text.partition("=")
    path = Path(rest if equals else text)
    artifact_format, _, target = kind.partition("/") if equals else ("", "", "")
    artifact_format = artifact_format or BY_SUFFIX.get(path.suffix.lower(), "")
    if not artifact_format:
        raise InvalidInput(
            f"it is not clear what {path.name} is",
            field="file",
            hint="say it: onnx=FILE, onnx-int8=FILE or hef/hailo8=FILE",
        )
    if not path.is_file():
        raise NotFound(f"{path} is not a file", field="file")
    return NamedFile(artifact_format, path, target)
