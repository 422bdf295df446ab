"""The contracts of backends: a model that is loaded and can be run.

A `Backend` computes in this process; it is used by one engine, from several threads at once. An
`AcceleratorBackend` computes elsewhere and is used on the engine's event loop. Both get tensors
in the protocol's numpy form (BYTES as `bytes` objects, BF16 as uint16 bits) and give the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_runtime.protocol.types import Array, Signature


class Run(Protocol):
    """One execution that another thread may abort."""

    def execute(self) -> list[Array]:
        """Compute. Raises InvalidInput when the model refuses the data, Cancelled after `abort`."""
        ...

    def abort(self) -> None:
        """Ask a running execution to stop soon; harmless before and after."""
        ...


class Cancelled(Exception):
    """An execution was aborted because nobody waits for it any more."""


class Backend(Protocol):
    """A loaded model. platform and name are what the protocol's metadata reports.

    is_data_dependent: how much it computes may depend on values, not on shapes alone.
    """

    name: str
    platform: str
    signature: Signature
    is_data_dependent: bool

    def prepare(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Run:
        """Return an execution over these inputs that yields the named outputs in order."""
        ...

    def close(self) -> None:
        """Give the model's memory back."""
        ...


class AcceleratorFault(Exception):
    """A run was lost with what computed it; the same requests may be computed elsewhere."""


class TooSlow(AcceleratorFault):
    """A run was given up because it waited too long; the device is there."""


class AcceleratorBackend(Protocol):
    """A model on a device that may go away, come back, and go away again.

    depth: batches that may be under way at once; why: the reason why it takes none now, empty
    when it does; asked_at: set by its user when a request for it comes, on the loop's clock.
    """

    asked_at: float

    @property
    def name(self) -> str: ...

    @property
    def platform(self) -> str: ...

    @property
    def signature(self) -> Signature: ...

    @property
    def depth(self) -> int: ...

    @property
    def why(self) -> str: ...

    async def run(
        self, rows: Sequence[Mapping[str, Array]], outputs: Sequence[str]
    ) -> tuple[list[list[Array]], float]:
        """Compute requests as one batch; return the named outputs of each, in order.

        Beside them the seconds that the device itself took, without its other work. Raises
        AcceleratorFault when the batch was lost: none of its outputs is returned.
        """
        ...

    def close(self) -> None:
        """Give the device's memory back."""
        ...


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """intra_op_threads: threads inside one execution (1 is best for many callers)."""

    intra_op_threads: int = 1


class BackendLoader(Protocol):
    """Opens an artifact. Raises Corrupt or Unsupported."""

    def __call__(self, artifact: Path, options: BackendOptions) -> Backend: ...
