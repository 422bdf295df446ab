"""From a torch network to one ONNX file that is known to compute the same.

Traced with a batch of two or more and a named free dimension: a batch of one may be baked in
(pytorch#148886, #149065), so the exported dimension is checked too. The exporter notes source
lines and file paths at every node; they are taken out, which keeps the file the same on every
run and free of the machine it was made on.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_runtime.backends.base import BackendOptions
from edge_runtime.backends.onnx import load_onnx
from edge_runtime.errors import PrimeSparkError
from edge_runtime.protocol.types import Signature

OPSET: Final = 20
OUTPUT: Final = "logits"
TOLERANCE: Final = 1e-4

_BATCH: Final = "batch"
_CHUNK: Final = 128  # rows at once in the comparison: bounds its memory

Rows = NDArray[np.float32]


class Unfit(PrimeSparkError):
    """A model that must not be published: not accurate, or not what was exported."""

    code = "unfit_model"


@dataclass(frozen=True, slots=True, eq=False)
class Parity:
    """What the file answered. max_difference: largest absolute one from torch's answers."""

    logits: Rows
    max_difference: float


@dataclass(frozen=True, slots=True)
class Built:
    """A model that was written to a file and checked."""

    signature: Signature
    metrics: Mapping[str, float]


def export(network: nn.Module, sample: Tensor, name: str, path: Path) -> Signature:
    """Write a network in evaluation mode as ONNX; return the signature found in the file.

    sample: an input of at least two rows; name: what the input is called. Raises ValueError
    for a sample of one row, Unfit when the file does not take any number of rows.
    """
    if len(sample) < 2:
        raise ValueError("trace with two rows or more, or the batch may be fixed")
    with _quiet():
        program = torch.onnx.export(
            network,
            (sample,),
            input_names=[name],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim(_BATCH)},),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise Unfit("torch exported nothing")
    model = program.model_proto
    _forget_origin(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, str(path), save_as_external_data=False)
    return _signature(path, name, tuple(sample.shape[1:]))


def check_parity(network: nn.Module, path: Path, name: str, inputs: Tensor) -> Parity:
    """Compare file and network on every row of inputs.

    Raises Unfit when an answer differs by more than TOLERANCE.
    """
    backend = load_onnx(path, BackendOptions())
    found: list[Rows] = []
    worst = 0.0
    for rows in torch.split(inputs, _CHUNK):
        with torch.inference_mode():
            expected = network(rows).numpy()
        answer = backend.prepare({name: rows.numpy()}, [OUTPUT]).execute()[0].astype(np.float32)
        if answer.shape != expected.shape:
            raise Unfit(f"the file answers {answer.shape}, the network {expected.shape}")
        difference = float(np.abs(answer - expected).max())
        if not difference <= TOLERANCE:  # NaN is not either
            raise Unfit(f"an answer differs by {difference:.2e}, {TOLERANCE:.0e} is allowed")
        worst = max(worst, difference)
        found.append(answer)
    backend.close()
    return Parity(np.concatenate(found), worst)


def parameters(network: nn.Module) -> int:
    """Count the trained numbers of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def _signature(path: Path, name: str, rest: tuple[int, ...]) -> Signature:
    backend = load_onnx(path, BackendOptions())
    signature = backend.signature
    backend.close()
    inputs = [(spec.name, spec.datatype, spec.shape) for spec in signature.inputs]
    if inputs != [(name, "FP32", (-1, *rest))]:
        raise Unfit(f"the file takes {inputs}, not {name} FP32 {[-1, *rest]}")
    if [spec.name for spec in signature.outputs] != [OUTPUT] or not signature.is_batched:
        raise Unfit(f"the file gives {signature.outputs}, not a batch of {OUTPUT}")
    return signature


def _forget_origin(model: Any) -> None:
    graph = model.graph
    places = (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for place in (model, graph, *places):
        del place.metadata_props[:]
        place.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence two known notes of torch 2.13's exporter, and nothing else.

    It warns that torchvision's operators are left out (none is used here), and uses a check of
    its own that is deprecated (pytorch `isinstance(treespec, LeafSpec)`). Remove when gone.
    """
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")

    def is_of_interest(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    registration.addFilter(is_of_interest)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
            yield
    finally:
        registration.removeFilter(is_of_interest)
