from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.edge_runtime import onnx_models

OPEN = """
from pathlib import Path
import sys
from edge_runtime.backends.base import BackendOptions
from edge_runtime.backends.onnx import load_onnx
load_onnx(Path(sys.argv[1]), BackendOptions()).close()
"""


def test_onnxruntime_leaves_no_identifier_and_no_report_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    model = onnx_models.identity(tmp_path / "m.onnx", "FP32")
    # An environment without CI's own variables, which silence onnxruntime too.
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HOME": str(home),
        "TMPDIR": str(home),
    }
    subprocess.run([sys.executable, "-c", OPEN, str(model)], env=environment, check=True)
    assert [path.relative_to(home) for path in home.rglob("*")] == []
