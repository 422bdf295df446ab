"""What every peer does with a request: read one binary tensor, run it, write one back.

The least that the protocol's binary form allows, without checks, in an environment of its own
(nothing of this project is imported). Sessions have one thread, as everywhere in the benchmark.
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import orjson

MODELS = json.loads(os.environ["BENCH_MODELS"])  # name to path
PORT = int(os.environ["BENCH_PORT"])
HEAVY = "resnet18"  # computed off the event loop by the peers that have one


def open_sessions():
    return {name: Session(name, path) for name, path in MODELS.items()}


class Session:
    """One model. `answer` takes a body and returns a body."""

    def __init__(self, name, path):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        if not Path(path).is_file():
            raise SystemExit(f"there is no model at {path}")
        self.name = name
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._output = self._session.get_outputs()[0].name

    def run(self, feed):
        return self._session.run([self._output], feed)[0]

    def answer(self, body, header_bytes):
        return self.encode(self.run(decode(body, header_bytes)))

    def encode(self, data):
        raw = data.tobytes()
        header = orjson.dumps(
            {
                "model_name": self.name,
                "outputs": [
                    {
                        "name": self._output,
                        "datatype": "FP32",
                        "shape": data.shape,
                        "parameters": {"binary_data_size": len(raw)},
                    }
                ],
            }
        )
        return header + raw, len(header)


def decode(body, header_bytes):
    tensor = orjson.loads(body[:header_bytes])["inputs"][0]
    data = np.frombuffer(body, np.float32, offset=header_bytes)
    return {tensor["name"]: data.reshape(tensor["shape"])}


def response_headers(header_bytes):
    return {"inference-header-content-length": str(header_bytes)}
