"""What can be set of the edge runtime, and of every engine, as frozen models.

`cluster.settings` composes these with everything else into the one settings file; here stand the
parts that a box without a cluster needs, and what the portable core takes from them. The engine
is imported where it is made only, because every command reads settings and few run models.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from edge_runtime.engine import ModelOptions
    from edge_runtime.protocol.service import Limits


def _ip_address(text: str) -> str:
    if "%" in text:
        raise ValueError("an address without a zone")
    return str(ipaddress.ip_address(text))


def _absolute(path: Path) -> Path:
    """Commands and the runtime are started in different folders."""
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
SiteName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Address = Annotated[str, AfterValidator(_ip_address)]
Place = Annotated[Path, AfterValidator(_absolute)]


class Section(BaseModel):
    """A group of settings; an unknown name in it is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EngineSettings(Section):
    """How a model is served unless its own options say otherwise.

    threads: runs at once in a process, whatever the models; 0 for as many as there are processors.
    """

    threads: Annotated[int, Field(ge=0)] = 0
    max_batch_size: Count = 8
    max_delay_ms: Annotated[float, Field(ge=0)] = 0.0
    max_queue: Count = 256
    max_queue_wait_ms: Annotated[float, Field(gt=0)] = 1000.0
    intra_op_threads: Count = 1

    def options(self) -> ModelOptions:
        """Return how models are served unless they say otherwise."""
        from edge_runtime.engine import ModelOptions

        return ModelOptions(**self.model_dump(exclude={"threads"}))


class LimitSettings(Section):
    """Bounds of a request; sizes in bytes."""

    max_body_bytes: Count = 64 * 1024 * 1024
    max_json_bytes: Count = 8 * 1024 * 1024
    max_inflight_bytes: Count = 512 * 1024 * 1024
    max_inputs: Count = 64
    default_timeout_s: Seconds = 30.0
    max_timeout_s: Seconds = 300.0
    allow_non_finite: bool = False

    def limits(self) -> Limits:
        """Return the protocol's limits."""
        from edge_runtime.protocol.service import Limits

        return Limits(
            max_body_bytes=self.max_body_bytes,
            max_json_bytes=self.max_json_bytes,
            max_inflight_bytes=self.max_inflight_bytes,
            max_tensors=self.max_inputs,
            default_timeout_s=self.default_timeout_s,
            max_timeout_s=self.max_timeout_s,
            allow_non_finite=self.allow_non_finite,
        )


class EdgePorts(Section):
    """Where the edge runtime listens for clients of the site."""

    rest: Port = 8100
    grpc: Port = 9100

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        if self.rest == self.grpc:
            raise ValueError("two of them are the same")
        return self


class EdgeModels(Section):
    """folder: of model packages, `$home/edge/models` when unset; startup: which versions are loaded
    before it is ready: the newest of each model, all, or none. What was loaded or unloaded by
    name since stays so over a restart. max_bytes: of loaded models, as measured, 0 for no limit; a
    version that had to make room is loaded again when it is asked for. cache_bytes: of answers.
    """

    folder: Place | None = None
    startup: Literal["newest", "all", "none"] = "newest"
    max_bytes: Annotated[int, Field(ge=0)] = 0
    cache_bytes: Annotated[int, Field(ge=0)] = 16 * 1024 * 1024


class AcceleratorSettings(Section):
    """kind: `auto` uses a Hailo device where there is one, `hailo` says degraded while there is
    none, `none` never looks. python: the interpreter that has the vendor's `hailo_platform`
    (empty: the system's, else our own); driver_path: a folder put before its own search path;
    environment: NAME=VALUE pairs for it; max_models: on the device at once, 0 for any number.
    """

    kind: Literal["auto", "none", "hailo"] = "auto"
    python: str = ""
    driver_path: Place | None = None
    environment: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*=")], ...] = ()
    max_models: Annotated[int, Field(ge=0)] = 0


class OffloadSettings(Section):
    """Where requests may go that this box cannot serve in time; nowhere when gateway is empty.

    gateway: host:port of the cloud's gRPC; tls: unset for a trusted network only; ca: PEM of who
    signed its certificate, the system's when unset; token_file: holds the credential, read again
    when it changes. models, tenants: patterns of what may leave the site; keep_models,
    keep_tenants: of what stays in spite of that.
    """

    gateway: Annotated[str, Field(pattern=r"^$|^[A-Za-z0-9.:\[\]-]+:[0-9]{1,5}$")] = ""
    tls: bool = True
    ca: Place | None = None
    token_file: Place | None = None
    models: tuple[str, ...] = ("*",)
    tenants: tuple[str, ...] = ("*",)
    keep_models: tuple[str, ...] = ()
    keep_tenants: tuple[str, ...] = ()


class EdgeSettings(Section):
    """The edge runtime of this box, and the edge tier of a cluster.

    enabled: the cluster has an edge tier; here: `up` starts its node on this machine, else boxes
    join by `node join`; cpus: of the node.

    address: where clients of the site reach it; the Unix socket is there whatever it is. head:
    host:port of the head that this box joins, empty for the one of this machine.
    """

    enabled: bool = True
    here: bool = True
    site: SiteName = "edge-1"
    head: Annotated[str, Field(pattern=r"^$|^[A-Za-z0-9.:\[\]-]+:[0-9]{1,5}$")] = ""
    cpus: Count = 1
    address: Address = "127.0.0.1"
    ports: EdgePorts = EdgePorts()
    models: EdgeModels = EdgeModels()
    accelerator: AcceleratorSettings = AcceleratorSettings()
    offload: OffloadSettings = OffloadSettings()
    drain_s: Seconds = 20.0
