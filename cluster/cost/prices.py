"""Reads the price book: the default one (`configs/prices.yaml`), and what an operator put over it.

A book is merged figure by figure, so that a file of one's own holds only what is different. Each
figure keeps where it was read; an unknown key or an unknown machine is an error that names the
nearest known one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import Field, ValidationError

from edge_runtime.config import Section
from edge_runtime.errors import InvalidInput, NotFound
from policies.cost import Grid, Machine, Price, PriceBook, Setup, SiteSetup

DEFAULT: Final = "default"
TIERS: Final = ("colocated", "cloud", "edge")
_FIGURE: Final = frozenset({"value", "source", "date"})
Text = Annotated[str, Field(min_length=1)]


class PriceText(Section):
    """A figure with its source and its date; all three are needed."""

    value: Annotated[float, Field(ge=0)]
    source: Text
    date: date


class MachineText(Section):
    replica_usd_per_hour: PriceText
    busy_w: PriceText
    idle_w: PriceText


class GridText(Section):
    energy_usd_per_kwh: PriceText
    carbon_g_per_kwh: PriceText


class SetupText(Section):
    machine: str
    grid: str
    egress_usd_per_gb: PriceText


class SiteText(Section):
    machine: str | None = None
    grid: str | None = None
    egress_usd_per_gb: PriceText | None = None


class BookText(Section):
    """A price book as it is written."""

    machines: dict[str, MachineText]
    grids: dict[str, GridText]
    tiers: dict[str, SetupText]
    sites: dict[str, SiteText] = Field(default_factory=dict)
    carbon_usd_per_tonne: PriceText | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a book for people: where it stands in it, what it says, and who said so."""

    key: str
    value: float | str
    source: str
    date: str
    origin: str


def read_book(path: Path | None = None) -> PriceBook:
    """Return the book in force. path: of the operator's, the default one alone when None.

    Raises NotFound for a file that is not there, InvalidInput naming the key that is wrong.
    """
    return _built(_read(path)[0], str(path) if path else DEFAULT)


def read_figures(path: Path | None = None) -> tuple[Figure, ...]:
    """Return every figure of the book in force, with its origin. Raises as `read_book` does."""
    tree, origins = _read(path)
    book = _built(tree, str(path) if path else DEFAULT)
    return tuple(_figures(book, origins))


def _read(path: Path | None) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    text = resources.files("configs").joinpath("prices.yaml").read_text("utf-8")
    tree: dict[str, Any] = yaml.safe_load(text)
    origins: dict[str, str] = {}
    if path is not None:
        try:
            own = yaml.safe_load(path.read_text("utf-8"))
        except FileNotFoundError:
            raise NotFound(
                f"the price book {path} is not there",
                field="cost.price_book",
                hint="`prime-spark prices` shows the default one; leave the setting out to use it",
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise InvalidInput(
                f"the price book {path} cannot be read: {why}", field="cost.price_book"
            ) from None
        except yaml.YAMLError as error:
            raise InvalidInput(f"{path} is not YAML: {error}", field="cost.price_book") from None
        if own is not None and not isinstance(own, dict):
            raise InvalidInput(f"{path} must hold keys and values", field="cost.price_book")
        _merge(tree, own or {}, str(path), origins)
    return tree, origins


def _merge(
    tree: dict[str, Any],
    over: Mapping[str, Any],
    source: str,
    origins: dict[str, str],
    prefix: str = "",
) -> None:
    for key, value in over.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict) and not _FIGURE & set(value):
            below = tree.setdefault(key, {})
            if isinstance(below, dict):
                _merge(below, value, source, origins, f"{dotted}.")
                continue
        tree[key] = value
        origins[dotted] = source


def _built(tree: Mapping[str, Any], source: str) -> PriceBook:
    try:
        found = BookText.model_validate(tree)
    except ValidationError as error:
        raise _explained(error, source) from None
    _check_names("tiers", found.tiers, TIERS, source)
    for group in ("tiers", "sites"):
        for name, setup in getattr(found, group).items():
            for key, known in (("machine", found.machines), ("grid", found.grids)):
                wanted = getattr(setup, key)
                if wanted is not None:
                    _check_names(f"{group}.{name}.{key}", (wanted,), known, source)
    return PriceBook(
        machines={name: Machine(**_prices(m)) for name, m in found.machines.items()},
        grids={name: Grid(**_prices(g)) for name, g in found.grids.items()},
        tiers={
            name: Setup(t.machine, t.grid, _price(t.egress_usd_per_gb))
            for name, t in found.tiers.items()
        },
        sites={
            name: SiteSetup(s.machine, s.grid, _price_if(s.egress_usd_per_gb))
            for name, s in found.sites.items()
        },
        carbon_usd_per_tonne=_price_if(found.carbon_usd_per_tonne),
    )


def _price(found: PriceText) -> Price:
    return Price(found.value, found.source, found.date.isoformat())


def _price_if(found: PriceText | None) -> Price | None:
    return None if found is None else _price(found)


def _prices(found: Section) -> dict[str, Price]:
    return {name: _price(getattr(found, name)) for name in type(found).model_fields}


def _check_names(key: str, found: Any, known: Any, source: str) -> None:
    for name in found:
        if name not in known:
            raise InvalidInput(
                f"price book, {key}: there is no '{name}' ({source})",
                field=key,
                hint=_nearest(name, known),
            )


def _explained(error: ValidationError, source: str) -> InvalidInput:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = {name for kind in _KINDS for name in kind.model_fields}
        return InvalidInput(
            f"price book: unknown key '{key}' ({source})",
            field=key,
            hint=_nearest(str(first["loc"][-1]), known),
        )
    is_flat = first["type"] == "model_type"
    why = "it must hold keys and values" if is_flat else first["msg"]
    return InvalidInput(f"price book, {key}: {why} ({source})", field=key)


_KINDS: Final = (BookText, MachineText, GridText, SetupText, SiteText, PriceText)


def _nearest(name: str, known: Any) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known are {', '.join(names)}"


def _figures(node: Any, origins: Mapping[str, str], prefix: str = "") -> Iterator[Figure]:
    if isinstance(node, Price):
        yield Figure(prefix, node.value, node.source, node.date, _origin(prefix, origins))
    elif isinstance(node, str):
        yield Figure(prefix, node, "", "", _origin(prefix, origins))
    elif isinstance(node, Mapping) or (is_dataclass(node) and not isinstance(node, type)):
        items = (
            node.items()
            if isinstance(node, Mapping)
            else ((field.name, getattr(node, field.name)) for field in fields(node))
        )
        for name, value in items:
            yield from _figures(value, origins, f"{prefix}.{name}" if prefix else name)


def _origin(key: str, origins: Mapping[str, str]) -> str:
    return origins.get(key, DEFAULT)
