"""Write `inference_pb2.py` and `inference_pb2.pyi` from `inference.proto`; needs grpcio-tools.

The module registers its messages in a descriptor pool of its own. Every client of the protocol
declares the same message names, and the default pool of a process takes a name only once:
`tritonclient` could not be imported beside ours otherwise. Names of messages do not travel.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

HERE = Path(__file__).parent
DEFAULT_POOL = "_descriptor_pool.Default()"
OWN_POOL = "_descriptor_pool.DescriptorPool()"
UNFORMATTED = "# ruff: noqa\n# fmt: off\n"
UNTYPED_MAPPINGS = '# mypy: disable-error-code="type-arg"\n'


def generate(folder: Path) -> None:
    """Write the modules into folder. Raises RuntimeError when protoc refuses the file."""
    arguments = ["protoc", f"-I{HERE}", f"--python_out={folder}", f"--pyi_out={folder}"]
    if protoc.main([*arguments, "inference.proto"]) != 0:
        raise RuntimeError("protoc failed; it has said why")
    module, stub = folder / "inference_pb2.py", folder / "inference_pb2.pyi"
    code = module.read_text()
    if code.count(DEFAULT_POOL) != 1:
        raise RuntimeError(f"expected {DEFAULT_POOL} once in what protoc wrote")
    module.write_text(UNFORMATTED + code.replace(DEFAULT_POOL, OWN_POOL))
    stub.write_text(UNFORMATTED + UNTYPED_MAPPINGS + stub.read_text())


if __name__ == "__main__":
    generate(HERE)
    sys.stdout.write(f"wrote {HERE.name}/inference_pb2.py and .pyi\n")
