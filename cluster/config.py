"""Settings: one YAML file with a profile, variables and flags over it, parsed once.

Later sources win: built-in defaults, the profile (`configs/profiles/NAME.yaml`), the file
(`$PRIME_SPARK_HOME/config.yaml`, or where `PRIME_SPARK_CONFIG` points), `PRIME_SPARK_*`
variables (two underscores between levels: `PRIME_SPARK_PORTS__REST=8080`), and overrides from
flags. An unknown key is an error that names the nearest known one. Secrets never stand here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_runtime.errors import InvalidInput, NotFound

PREFIX: Final = "PRIME_SPARK_"
PROFILES: Final = ("local", "site", "cloud", "edge")

_Port = Annotated[int, Field(ge=1, le=65535)]
_Count = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(gt=0)]
_SiteName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ports(_Section):
    """TCP ports on `address` (rest, grpc) and on loopback (dashboard, gcs, edge_*)."""

    rest: _Port = 8000
    grpc: _Port = 9000
    dashboard: _Port = 8265
    gcs: _Port = 6379


class Tls(_Section):
    """Certificate chain and private key of the front door (PEM); plain HTTP when unset."""

    certificate: Path | None = None
    key: Path | None = None


class FrontDoor(_Section):
    """Bounds that hold before a request reaches a gateway replica."""

    max_connections: _Count = 4096
    header_timeout_s: _Seconds = 10.0
    idle_timeout_s: _Seconds = 75.0
    server_timeout_s: _Seconds = 330.0


class GatewaySettings(_Section):
    """replicas: gateways that run; max_replicas: slots behind the front door."""

    replicas: _Count = 1
    max_replicas: _Count = 4


class InferenceSettings(_Section):
    """Autoscaling of the cloud tier; the edge tier keeps min_replicas."""

    min_replicas: _Count = 1
    max_replicas: _Count = 2
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 16.0
    upscale_delay_s: _Seconds = 3.0
    downscale_delay_s: _Seconds = 60.0


class EngineSettings(_Section):
    """How a model is served unless its own options say otherwise."""

    max_batch_size: _Count = 8
    max_delay_ms: Annotated[float, Field(ge=0)] = 0.0
    max_queue: _Count = 256
    max_queue_wait_ms: Annotated[float, Field(gt=0)] = 1000.0
    intra_op_threads: _Count = 1


class LimitSettings(_Section):
    """Bounds of a request; sizes in bytes."""

    max_body_bytes: _Count = 64 * 1024 * 1024
    max_json_bytes: _Count = 8 * 1024 * 1024
    max_inflight_bytes: _Count = 512 * 1024 * 1024
    max_inputs: _Count = 64
    default_timeout_s: _Seconds = 30.0
    max_timeout_s: _Seconds = 300.0
    allow_non_finite: bool = False


class EdgeSettings(_Section):
    """The edge node that `up` starts beside the head on one machine."""

    enabled: bool = True
    site: _SiteName = "edge-1"
    accelerator: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] = "none"
    cpus: _Count = 1


class RaySettings(_Section):
    """cpus: logical CPUs of the head (0: as many as the machine has).

    address: the node address that Ray's processes listen on. On loopback nothing of Ray can be
    reached from outside; nodes of other machines need the address of a trusted network.
    """

    address: Annotated[str, Field(pattern=r"^[0-9A-Fa-f.:]+$")] = "127.0.0.1"
    cpus: Annotated[int, Field(ge=0)] = 0
    object_store_bytes: Annotated[int, Field(ge=78_643_200)] = 200 * 1024 * 1024


class Settings(_Section):
    """Everything that can be set. address: where the front door listens."""

    home: str = "~/.prime-spark"
    profile: str = "local"
    address: Annotated[str, Field(pattern=r"^[0-9A-Fa-f.:]+$")] = "127.0.0.1"
    site: _SiteName = "cloud-1"
    ports: Ports = Ports()
    tls: Tls = Tls()
    front_door: FrontDoor = FrontDoor()
    gateway: GatewaySettings = GatewaySettings()
    inference: InferenceSettings = InferenceSettings()
    engine: EngineSettings = EngineSettings()
    limits: LimitSettings = LimitSettings()
    edge: EdgeSettings = EdgeSettings()
    ray: RaySettings = RaySettings()


def load_settings(
    env: Mapping[str, str], overrides: Mapping[str, object] | None = None
) -> Settings:
    """Read and check the settings. overrides: dotted keys (`ports.rest`).

    Raises InvalidInput naming the key and where it was set, NotFound for a named file that
    is not there.
    """
    return load_with_origins(env, overrides)[0]


def load_with_origins(
    env: Mapping[str, str], overrides: Mapping[str, object] | None = None
) -> tuple[Settings, Mapping[str, str]]:
    """Return the settings and, by dotted key, where each value came from (else a default)."""
    values: dict[str, object] = {}
    origins: dict[str, str] = {}

    def add(source: str, found: Mapping[str, object]) -> None:
        for key, value in found.items():
            _check_key(key, source)
            values[key] = value
            origins[key] = source

    variables = {
        _dotted(name): (name, value)
        for name, value in env.items()
        if name.startswith(PREFIX) and name not in _NOT_SETTINGS
    }
    flags = dict(overrides or {})
    home = str(flags.get("home") or variables.get("home", ("", _default("home")))[1])
    file, source = _config_file(env, home)
    in_file = dict(_flatten(file))
    profile = str(
        flags.get("profile")
        or variables.get("profile", ("", None))[1]
        or in_file.get("profile", _default("profile"))
    )
    add(f"profile {profile}", dict(_flatten(_profile(profile))))
    add(source, in_file)
    for key, (name, value) in variables.items():
        add(f"variable {name}", {key: yaml.safe_load(value) if value else value})
    add("flag", flags)
    try:
        return Settings.model_validate(_nest(values)), origins
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        where = origins.get(key, "default")
        raise InvalidInput(f"setting '{key}' ({where}): {first['msg']}", field=key) from None


def known_keys() -> tuple[str, ...]:
    """Return every dotted key there is, in order."""
    return tuple(_keys(Settings))


_NOT_SETTINGS: Final = frozenset(
    {"PRIME_SPARK_CONFIG", "PRIME_SPARK_TOKEN", "PRIME_SPARK_CLUSTER", "PRIME_SPARK_NODE"}
)


def _dotted(name: str) -> str:
    return name.removeprefix(PREFIX).lower().replace("__", ".")


def _default(key: str) -> str:
    return str(Settings.model_fields[key].default)


def _config_file(env: Mapping[str, str], home: str) -> tuple[Mapping[str, Any], str]:
    named = env.get("PRIME_SPARK_CONFIG")
    path = Path(named) if named else Path(home).expanduser() / "config.yaml"
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        if named:
            raise NotFound(
                f"PRIME_SPARK_CONFIG names {path}, which is not there", field="config"
            ) from None
        return {}, str(path)
    return _parse(text, str(path)), str(path)


def _profile(name: str) -> Mapping[str, Any]:
    if name not in PROFILES:
        raise InvalidInput(
            f"there is no profile '{name}'", field="profile", hint="one of " + ", ".join(PROFILES)
        )
    text = resources.files("configs").joinpath("profiles", f"{name}.yaml").read_text("utf-8")
    return _parse(text, f"profile {name}")


def _parse(text: str, source: str) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidInput(f"{source} is not YAML: {error}", field="config") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidInput(f"{source} must hold keys and values", field="config")
    return found


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flatten(value, f"{dotted}.")
        else:
            yield dotted, value


def _nest(values: Mapping[str, object]) -> Mapping[str, object]:
    tree: dict[str, Any] = {}
    for dotted, value in values.items():
        at = tree
        *parents, leaf = dotted.split(".")
        for parent in parents:
            at = at.setdefault(parent, {})
        at[leaf] = value
    return tree


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        nested = next(
            (k for k in (kind, *get_args(kind)) if isinstance(k, type) and issubclass(k, _Section)),
            None,
        )
        if nested is None:
            yield prefix + name
        else:
            yield from _keys(nested, f"{prefix}{name}.")


def _check_key(key: str, source: str) -> None:
    known = known_keys()
    if key in known:
        return
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    raise InvalidInput(
        f"unknown setting '{key}' ({source})",
        field=key,
        hint=f"did you mean '{nearest[0]}'?" if nearest else "`prime-spark config show` lists them",
    )
