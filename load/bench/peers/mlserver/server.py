"""Writes MLServer's settings into a folder and becomes `mlserver start`."""

import json
import os
import sys
from pathlib import Path

import bare

folder = Path(os.environ["BENCH_SCRATCH"])
settings = {
    "host": "127.0.0.1",
    "http_port": bare.PORT,
    "grpc_port": int(os.environ["BENCH_GRPC_PORT"]),
    "metrics_endpoint": None,
    "parallel_workers": int(os.environ["BENCH_WORKERS"]),
    "debug": False,
    "logging_settings": {"version": 1, "root": {"level": "WARNING"}},
}
(folder / "settings.json").write_text(json.dumps(settings))
for name in bare.MODELS:
    (folder / name).mkdir(exist_ok=True)
    model = {"name": name, "implementation": "onnx_runtime.OnnxModel"}
    (folder / name / "model-settings.json").write_text(json.dumps(model))
sys.stdout.flush()
os.chdir(folder)
os.execv(sys.executable, [sys.executable, "-m", "mlserver.cli.main", "start", str(folder)])  # noqa: S606
