"""What the gateway knows of models: a snapshot of the registry that requests read for free.

A background task refreshes it; a request resolves its model and version against an immutable
snapshot, so no request waits for the registry, and the gateway goes on when the registry
cannot be read. Without a version, the alias `production` decides, else the newest version being
served that is no canary and no shadow; canaries get their share of such requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cluster.registry.interface import Registry
from cluster.registry.types import PRODUCTION, ModelVersion, ServingEntry
from edge_runtime.engine import ModelOptions, model_options
from edge_runtime.errors import Corrupt, NotFound, PrimeSparkError, Unavailable
from policies.routing.splits import OPTIONS, Shares, is_shadowed, shares_of, version_for

logger = logging.getLogger(__name__)

POLL_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A version that ought to run: what it is, where, and with which options.

    is_full: nothing is said of a share, so that it may be the one that answers by default.
    """

    version: ModelVersion
    entry: ServingEntry
    options: ModelOptions
    shares: Shares
    is_full: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent reading. served: by model, versions in order of registration."""

    generation: int = -1
    served: Mapping[str, tuple[ServedModel, ...]] = field(default_factory=dict)
    production: Mapping[str, str] = field(default_factory=dict)
    registered: Mapping[str, tuple[ModelVersion, ...]] = field(default_factory=dict)

    def resolve(self, model: str, version: str | None, key: str | None = None) -> ServedModel:
        """Return the version a request means. Raises NotFound, Unavailable if not served.

        key: of a request that may get a canary where it names no version; the same for those that
        belong together.
        """
        served = self.served.get(model, ())
        wanted = version or self.production.get(model)
        if wanted is None and served:
            full = [each for each in served if each.is_full]
            wanted = (full or served)[-1].version.version
        if key is not None and version is None and wanted is not None:
            canaries = [(s.version.version, s.shares.canary) for s in served if s.shares.canary]
            if canaries:
                others = [each for each in canaries if each[0] != wanted]
                wanted = version_for(key, wanted, others)
        for candidate in served:
            if candidate.version.version == wanted:
                return candidate
        known = [found.version for found in self.registered.get(model, ())]
        if not known:
            raise NotFound(
                f"there is no model '{model[:128]}'",
                field="model",
                hint="`prime-spark model list` shows the models there are",
            )
        if version is not None and version not in known:
            raise NotFound(
                f"model '{model}' has no version '{version[:64]}'",
                field="version",
                hint="it has " + ", ".join(known[-8:]),
            )
        raise Unavailable(
            f"model '{model}' version '{wanted or known[-1]}' is not being served",
            hint=f"serve it with `prime-spark model serve {model}@{wanted or known[-1]}`",
            retry_after_s=5.0,
        )

    def shadows(self, model: str, answering: str, key: str) -> list[ServedModel]:
        """Return the versions that get a copy of a request, besides the one that answers it."""
        return [
            served
            for served in self.served.get(model, ())
            if served.shares.shadow
            and served.version.version != answering
            and is_shadowed(key, served.version.version, served.shares.shadow)
        ]


class Catalogue:
    """Keeps the current snapshot; `run` polls for ever, `refresh` reads once."""

    def __init__(self, registry: Registry, defaults: ModelOptions) -> None:
        self._registry = registry
        self.defaults = defaults
        self.snapshot = Snapshot()
        self.problem: str | None = None

    async def run(self) -> None:
        """Refresh until cancelled; the last good snapshot stays while reading fails."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_S)

    async def refresh(self) -> None:
        """Read the registry once, off the event loop."""
        try:
            self.snapshot = await asyncio.to_thread(self._read)
            self.problem = None
        except PrimeSparkError as error:
            if self.problem is None:
                logger.error("the registry cannot be read: %s", error)
            self.problem = error.message

    def _read(self) -> Snapshot:
        before = self.snapshot
        if self._registry.serving_generation() == before.generation:
            return before
        # What changes after this line raises the generation again, and is read the next time.
        generation, entries = self._registry.serving()
        models = self._registry.models()
        production = {
            model: aliased
            for model in models
            if (aliased := self._registry.aliases(model).get(PRODUCTION)) is not None
        }
        registered = {model: self._versions(model) for model in models}
        by_key = {(v.model, v.version): v for found in registered.values() for v in found}
        served: dict[str, list[ServedModel]] = {}
        for entry in entries:
            version = by_key.get((entry.model, entry.version))
            if version is not None:
                served.setdefault(entry.model, []).append(self._served(version, entry))
        for model, found in served.items():
            order = [v.version for v in registered[model]]
            found.sort(key=lambda s: order.index(s.version.version))
        frozen = {model: tuple(found) for model, found in served.items()}
        return Snapshot(generation, frozen, production, registered)

    def _versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Return a model's versions; a damaged one leaves the other models as they are."""
        try:
            return self._registry.versions(model)
        except Corrupt as error:
            logger.error("%s", error)
            return self.snapshot.registered.get(model, ())

    def _served(self, version: ModelVersion, entry: ServingEntry) -> ServedModel:
        options, shares = self.defaults, Shares()
        try:
            shares = shares_of(entry.options)
        except ValueError as error:
            logger.error("%s:%s: %s", entry.model, entry.version, error)
        try:
            options = model_options(self.defaults, entry.engine_options)
        except (PrimeSparkError, ValueError) as error:
            logger.error("%s:%s: %s", entry.model, entry.version, error)
        is_full = not any(name in entry.options for name in OPTIONS)
        return ServedModel(version, entry, options, shares, is_full)
