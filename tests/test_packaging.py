"""What a Raspberry Pi installs: small, and without Ray or torch."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROBE = """
import json, sys
import edge_runtime.backends.onnx, edge_runtime.engine, edge_runtime.service
import edge_runtime.protocol.grpc_service, edge_runtime.protocol.rest
from importlib.metadata import distributions
print(json.dumps({
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    "installed": sorted(d.metadata["Name"].lower() for d in distributions()),
}))
"""


@pytest.mark.timeout(300)
def test_the_edge_extra_brings_neither_ray_nor_torch_and_the_runtime_works_with_it(
    tmp_path: Path,
) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env" / "bin" / "python")
    constraints = str(ROOT / "constraints.txt")
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "-c", constraints, f"{ROOT}[edge]"],
        check=True,
        cwd=tmp_path,
    )
    done = subprocess.run(
        [python, "-c", PROBE], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    found = json.loads(done.stdout)
    unwanted = {"ray", "torch", "pandas", "scikit-learn", "sklearn"}
    assert not unwanted & set(found["installed"])
    assert not unwanted & set(found["modules"])
    helped = subprocess.run(
        [str(tmp_path / "env" / "bin" / "prime-spark"), "--help"], capture_output=True, text=True
    )
    assert helped.returncode == 0, helped.stderr


def test_the_edge_runtime_starts_without_grpc() -> None:
    """It is loaded for the first who calls over it: edge_runtime.grpc_door."""
    code = "import sys, edge_runtime.app; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"grpc", "google"} & {name.partition(".")[0] for name in done.stdout.split()}


def test_the_command_line_starts_without_ray_torch_or_onnxruntime() -> None:
    code = "import sys, cluster.cli.main; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not {"ray", "torch", "onnxruntime", "grpc", "numpy"} & loaded


def test_the_entry_client_needs_nothing_but_the_standard_library() -> None:
    code = "import sys, edge_runtime.entry; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    ours = {"edge_runtime", "policies"}
    assert ours <= loaded
    begun = subprocess.run(  # what an environment loads by itself
        [sys.executable, "-c", "import sys; print(*sys.modules, sep='\\n')"],
        check=True,
        capture_output=True,
        text=True,
    )
    already = {name.partition(".")[0] for name in begun.stdout.split()}
    assert loaded - already - ours <= sys.stdlib_module_names
