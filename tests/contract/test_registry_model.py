"""Any sequence of calls against a registry and against a few dictionaries: same answers."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cluster.registry import ServingEntry
from edge_runtime.errors import Conflict, NotFound, PrimeSparkError
from tests.contract.registries import IMPLEMENTATIONS, OpenRegistry, entry, file_with, register

MODELS = ("a", "b")
NAMES = st.sampled_from(["1", "2", "3", "production", "staging"])
REFS = st.none() | NAMES
PLACEMENTS = st.sets(st.sampled_from(["cloud", "edge"]), min_size=1)


class _Expected:
    """The obvious implementation."""

    def __init__(self) -> None:
        self.versions: dict[str, list[str]] = {model: [] for model in MODELS}
        self.aliases: dict[str, dict[str, str]] = {model: {} for model in MODELS}
        self.serving: dict[tuple[str, str], ServingEntry] = {}
        self.events = dict.fromkeys(MODELS, 0)

    def register(self, model: str, version: str) -> type[PrimeSparkError] | None:
        if version in self.versions[model] or version in self.aliases[model]:
            return Conflict
        self.versions[model].append(version)
        self.events[model] += 1
        return None

    def set_alias(
        self, model: str, alias: str, version: str | None, expected: str | None
    ) -> type[PrimeSparkError] | None:
        if version is not None and version not in self.versions[model]:
            return NotFound
        actual = self.aliases[model].get(alias)
        if alias in self.versions[model] or actual != expected:
            return Conflict
        if version == actual:
            return None
        if version is None:
            del self.aliases[model][alias]
        else:
            self.aliases[model][alias] = version
        self.events[model] += 1
        return None

    def serve(self, found: ServingEntry) -> type[PrimeSparkError] | None:
        if found.version not in self.versions[found.model]:
            return NotFound
        self.serving[found.model, found.version] = found
        self.events[found.model] += 1
        return None

    def stop(self, model: str, version: str) -> type[PrimeSparkError] | None:
        if self.serving.pop((model, version), None) is None:
            return NotFound
        self.events[model] += 1
        return None

    def resolve(self, model: str, ref: str | None) -> str | None:
        versions, aliases = self.versions[model], self.aliases[model]
        if ref is None:
            return aliases.get("production", versions[-1] if versions else None)
        return ref if ref in versions else aliases.get(ref)


class RegistryMachine(RuleBasedStateMachine):
    """Every rule is one call on both sides."""

    open_registry: OpenRegistry

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.source = file_with(Path(self.folder.name), b"weights")
        self.registry = self.open_registry(Path(self.folder.name) / "registry")
        self.expected = _Expected()
        self.generation = self.registry.serving_generation()

    def teardown(self) -> None:
        self.folder.cleanup()

    def changed(self, call: object, expected: type[PrimeSparkError] | None) -> None:
        assert callable(call)
        error: type[PrimeSparkError] | None = None
        try:
            call()
        except PrimeSparkError as found:
            error = type(found)
        assert error == expected

    @rule(model=st.sampled_from(MODELS), version=NAMES)
    def register(self, model: str, version: str) -> None:
        expected = self.expected.register(model, version)
        self.changed(lambda: register(self.registry, self.source, model, version), expected)

    @rule(model=st.sampled_from(MODELS), alias=NAMES, version=REFS, expected=REFS)
    def set_alias(self, model: str, alias: str, version: str | None, expected: str | None) -> None:
        outcome = self.expected.set_alias(model, alias, version, expected)
        self.changed(
            lambda: self.registry.set_alias(
                model, alias, version, expected=expected, actor="tests"
            ),
            outcome,
        )

    @rule(model=st.sampled_from(MODELS), alias=NAMES, version=REFS)
    def move_alias(self, model: str, alias: str, version: str | None) -> None:
        self.set_alias(model, alias, version, self.expected.aliases[model].get(alias))

    @rule(model=st.sampled_from(MODELS), version=NAMES, placements=PLACEMENTS)
    def serve(self, model: str, version: str, placements: set[str]) -> None:
        found = entry(model, version, *placements)
        self.changed(lambda: self.registry.serve(found), self.expected.serve(found))

    @rule(model=st.sampled_from(MODELS), version=NAMES)
    def stop_serving(self, model: str, version: str) -> None:
        self.changed(
            lambda: self.registry.stop_serving(model, version, actor="tests"),
            self.expected.stop(model, version),
        )

    @rule(model=st.sampled_from(MODELS), ref=REFS)
    def resolve(self, model: str, ref: str | None) -> None:
        try:
            found: str | None = self.registry.resolve(model, ref).version
        except NotFound:
            found = None
        assert found == self.expected.resolve(model, ref)

    @invariant()
    def agrees(self) -> None:
        expected = self.expected
        for model in MODELS:
            versions = [found.version for found in self.registry.versions(model)]
            assert versions == expected.versions[model]
            assert self.registry.aliases(model) == expected.aliases[model]
            assert len(self.registry.history(model)) == expected.events[model]
        assert list(self.registry.models()) == [m for m in MODELS if expected.versions[m]]
        generation, entries = self.registry.serving()
        assert list(entries) == [
            expected.serving[model, version]
            for model in MODELS
            for version in expected.versions[model]
            if (model, version) in expected.serving
        ]
        assert generation - self.generation >= 0
        self.generation = generation


def _machine(open_registry: OpenRegistry) -> type[RegistryMachine]:
    return type(
        RegistryMachine.__name__, (RegistryMachine,), {"open_registry": staticmethod(open_registry)}
    )


TestEmbedded = _machine(IMPLEMENTATIONS["embedded"]).TestCase
TestEmbedded.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_every_implementation_has_its_machine() -> None:
    assert set(IMPLEMENTATIONS) == {"embedded"}
