"""Settings: one YAML file with a profile, variables and flags over it, parsed once.

Later sources win: built-in defaults, the profile (`configs/profiles/NAME.yaml`), the file
(`$PRIME_SPARK_HOME/config.yaml`, or where `PRIME_SPARK_CONFIG` points), `PRIME_SPARK_*`
variables (two underscores between levels: `PRIME_SPARK_PORTS__REST=8080`; an empty one counts
as not set), and overrides from flags. An unknown key is an error that names the nearest known
one. Secrets never stand here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from cluster.settings import Settings
from edge_runtime.config import Section
from edge_runtime.errors import InvalidInput, NotFound

__all__ = ["PROFILES", "Settings", "known_keys", "load_settings", "load_with_origins"]

PREFIX: Final = "PRIME_SPARK_"
PROFILES: Final = ("local", "site", "cloud", "edge")


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
        if value and name.startswith(PREFIX) and name not in _NOT_SETTINGS
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
        add(f"variable {name}", {key: value})
    add("flag", flags)
    try:
        return Settings.model_validate(_nest(values)), origins
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        where = ", ".join(_origins_of(key, origins)) or "default"
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"setting '{key}' ({where}): {message}", field=key) from None


def known_keys() -> tuple[str, ...]:
    """Return every dotted key there is, in order."""
    return tuple(_keys(Settings))


_SECTIONS: Final = frozenset(
    name for name, field in Settings.model_fields.items() if isinstance(field.default, Section)
)
_NOT_SETTINGS: Final = frozenset(
    {
        "PRIME_SPARK_CONFIG",
        "PRIME_SPARK_TOKEN",
        "PRIME_SPARK_CLUSTER",
        "PRIME_SPARK_NODE",
        "PRIME_SPARK_NODE_HOME",
    }
)


def _origins_of(key: str, origins: Mapping[str, str]) -> Iterable[str]:
    """Return where a setting, those of a section, or the list that it is in, came from."""
    return dict.fromkeys(
        where
        for name, where in origins.items()
        if name == key or name.startswith(f"{key}.") or key.startswith(f"{name}.")
    )


def _dotted(name: str) -> str:
    return name.removeprefix(PREFIX).lower().replace("__", ".")


def _default(key: str) -> str:
    return str(Settings.model_fields[key].default)


def _config_file(env: Mapping[str, str], home: str) -> tuple[Mapping[str, Any], str]:
    named = env.get("PRIME_SPARK_CONFIG")
    try:
        path = Path(named or f"{home}/config.yaml").expanduser()
        text = path.read_text("utf-8")
    except FileNotFoundError:
        if named:
            raise NotFound(
                f"PRIME_SPARK_CONFIG names {path}, which is not there", field="config"
            ) from None
        return {}, str(path)
    except NotADirectoryError:
        return {}, str(path)  # The home itself is no folder: `Home.at` says so.
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{named or home} cannot be read: {why}", field="config") from None
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
        if value is None and dotted in _SECTIONS:
            continue  # `ports:` with every line below it commented out.
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
        parts = () if get_origin(kind) is tuple else get_args(kind)  # a list is one value
        nested = next(
            (k for k in (kind, *parts) if isinstance(k, type) and issubclass(k, Section)), None
        )
        if nested is None:
            yield prefix + name
        else:
            yield from _keys(nested, f"{prefix}{name}.")


def _check_key(key: str, source: str) -> None:
    known = known_keys()
    if key in known:
        return
    if key in _SECTIONS:
        first = next(name for name in known if name.startswith(f"{key}."))
        raise InvalidInput(
            f"'{key}' ({source}) is a group of settings, not a value",
            field=key,
            hint=f"one of its settings is '{first}'",
        )
    parent = key.partition(".")[0]
    if parent != key and parent in known:
        raise InvalidInput(
            f"'{parent}' ({source}) is a value of its own and has no '{key}'",
            field=parent,
            hint="a list is written with a dash before each entry"
            if isinstance(Settings.model_fields[parent].default, tuple)
            else None,
        )
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    raise InvalidInput(
        f"unknown setting '{key}' ({source})",
        field=key,
        hint=f"did you mean '{nearest[0]}'?" if nearest else "`prime-spark config show` lists them",
    )
