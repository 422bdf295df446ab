"""What every model registry promises (`cluster.registry.interface`)."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.registry import Action, Artifact, ArtifactFile, ModelCard, Registry, ServingEntry
from edge_runtime.errors import Conflict, InvalidInput, NotFound
from edge_runtime.protocol.types import Signature, TensorSpec
from tests.contract.registries import CARD, IMPLEMENTATIONS, SIGNATURE, entry, file_with, register


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    return IMPLEMENTATIONS[request.param](tmp_path / "registry")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return file_with(tmp_path, b"weights")


def test_a_registry_where_nothing_was_registered_is_empty_and_readable(registry: Registry) -> None:
    assert registry.models() == ()
    assert registry.versions("digits") == ()
    assert registry.aliases("digits") == {}
    assert registry.history("digits") == ()
    assert registry.serving() == (registry.serving_generation(), ())


def test_a_version_is_returned_as_it_was_registered(registry: Registry, source: Path) -> None:
    registered = register(registry, source)
    assert registry.get("digits", "1") == registered
    assert (registered.signature, registered.card) == (SIGNATURE, CARD)
    assert registered.created_by == "tests"
    (artifact,) = registered.artifacts
    assert artifact == Artifact("onnx", hashlib.sha256(b"weights").hexdigest(), 7)


def test_the_artifact_is_a_read_only_copy_that_outlives_its_source(
    registry: Registry, source: Path
) -> None:
    (artifact,) = register(registry, source).artifacts
    source.write_bytes(b"other")
    path = registry.artifact_path(artifact, verify=True)
    assert path.read_bytes() == b"weights"
    assert path.stat().st_mode & 0o222 == 0


def test_a_version_may_have_several_formats_and_targets(registry: Registry, tmp_path: Path) -> None:
    files = [
        ArtifactFile("hef", file_with(tmp_path, b"8l", "b.hef"), "hailo8l"),
        ArtifactFile("hef", file_with(tmp_path, b"8", "a.hef"), "hailo8"),
        ArtifactFile("onnx", file_with(tmp_path, b"float", "a.onnx")),
    ]
    version = registry.register(
        "digits", "1", signature=SIGNATURE, artifacts=files, card=CARD, actor="tests"
    )
    kept = {
        (a.format, a.target): registry.artifact_path(a, verify=True).read_bytes()
        for a in version.artifacts
    }
    assert kept == {
        ("hef", "hailo8"): b"8",
        ("hef", "hailo8l"): b"8l",
        ("onnx", ""): b"float",
    }


def test_the_same_version_again_is_a_conflict_that_says_whether_it_is_the_same(
    registry: Registry, source: Path, tmp_path: Path
) -> None:
    first = register(registry, source)
    with pytest.raises(Conflict) as same:
        register(registry, source, actor="somebody else")
    assert same.value.details == {"identical": True}
    retrained = file_with(tmp_path, b"retrained", "new.onnx")
    for other, card in ((retrained, CARD), (source, ModelCard("other"))):
        with pytest.raises(Conflict) as different:
            register(registry, other, card=card)
        assert different.value.details == {"identical": False}
    assert registry.versions("digits") == (first,)


def test_the_digest_covers_content_and_not_who_registered_it_when(
    registry: Registry, source: Path, tmp_path: Path
) -> None:
    other = next(iter(IMPLEMENTATIONS.values()))(tmp_path / "elsewhere")
    here, there = register(registry, source), register(other, source, actor="somebody else")
    assert here.digest == there.digest
    assert here.digest != register(registry, source, version="2").digest


def test_versions_come_in_the_order_of_registration(registry: Registry, source: Path) -> None:
    for version in ("10", "9", "2"):
        register(registry, source, version=version)
    assert [found.version for found in registry.versions("digits")] == ["10", "9", "2"]
    assert registry.resolve("digits", None).version == "2"


def test_models_are_sorted(registry: Registry, source: Path) -> None:
    for model in ("b", "a", "c"):
        register(registry, source, model)
    assert registry.models() == ("a", "b", "c")


def test_without_a_reference_production_decides_before_the_newest(
    registry: Registry, source: Path
) -> None:
    register(registry, source, version="1")
    register(registry, source, version="2")
    registry.set_alias("digits", "production", "1", expected=None, actor="tests")
    assert registry.resolve("digits", None).version == "1"
    assert registry.resolve("digits", "production").version == "1"
    assert registry.resolve("digits", "2").version == "2"


def test_what_does_not_exist_is_not_found(registry: Registry, source: Path) -> None:
    register(registry, source)
    calls: list[Callable[[], object]] = [
        lambda: registry.get("digits", "2"),
        lambda: registry.get("nothing", "1"),
        lambda: registry.get("../etc", "\udc80"),
        lambda: registry.resolve("digits", "staging"),
        lambda: registry.resolve("nothing", None),
        lambda: registry.resolve("\udc80", None),
        lambda: registry.serve(entry(version="2")),
        lambda: registry.stop_serving("digits", "1", actor="tests"),
        lambda: registry.set_alias("digits", "a", "2", expected=None, actor="tests"),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            call()


def test_an_alias_moves_only_from_where_the_caller_saw_it(registry: Registry, source: Path) -> None:
    register(registry, source, version="1")
    register(registry, source, version="2")
    registry.set_alias("digits", "production", "1", expected=None, actor="tests")
    for expected in (None, "2"):
        with pytest.raises(Conflict) as refused:
            registry.set_alias("digits", "production", "2", expected=expected, actor="late")
        assert refused.value.details == {"actual": "1"}
    registry.set_alias("digits", "production", "2", expected="1", actor="tests")
    assert registry.aliases("digits") == {"production": "2"}
    registry.set_alias("digits", "production", None, expected="2", actor="tests")
    assert registry.aliases("digits") == {}
    with pytest.raises(Conflict) as gone:
        registry.set_alias("digits", "production", "1", expected="2", actor="late")
    assert gone.value.details == {"actual": None}


def test_a_name_is_a_version_or_an_alias_and_never_both(registry: Registry, source: Path) -> None:
    register(registry, source, version="1")
    registry.set_alias("digits", "stable", "1", expected=None, actor="tests")
    with pytest.raises(Conflict):
        registry.set_alias("digits", "1", "1", expected=None, actor="tests")
    with pytest.raises(Conflict):
        register(registry, source, version="stable")


def test_the_history_tells_who_did_what(registry: Registry, source: Path) -> None:
    register(registry, source, version="1", actor="ada")
    register(registry, source, version="2", actor="ada")
    registry.set_alias("digits", "production", "1", expected=None, actor="bob")
    registry.set_alias("digits", "production", "2", expected="1", actor="eve")
    registry.set_alias("digits", "production", None, expected="2", actor="bob")
    registry.serve(entry(version="2"))
    registry.stop_serving("digits", "2", actor="bob")
    events = registry.history("digits")
    assert [(e.actor, e.action, e.version, e.alias, e.previous) for e in events] == [
        ("ada", Action.REGISTERED, "1", None, None),
        ("ada", Action.REGISTERED, "2", None, None),
        ("bob", Action.ALIAS_MOVED, "1", "production", None),
        ("eve", Action.ALIAS_MOVED, "2", "production", "1"),
        ("bob", Action.ALIAS_REMOVED, "2", "production", "2"),
        ("tests", Action.SERVED, "2", None, None),
        ("bob", Action.STOPPED, "2", None, None),
    ]
    assert [e.number for e in events] == sorted({e.number for e in events})
    assert events[5].details == {"placements": ["cloud"], "options": {"max_batch_size": 4}}


def test_the_serving_table_is_the_last_word_on_each_version(
    registry: Registry, source: Path
) -> None:
    for model, version in (("b", "2"), ("b", "1"), ("a", "1")):
        register(registry, source, model, version)
        registry.serve(entry(model, version, "cloud"))
    changed = replace(entry("b", "1", "edge", "colocated"), options={"a": True, "b": 0.5, "c": "x"})
    generation = registry.serve(changed)
    found = registry.serving()
    assert found == (generation, (entry("a"), entry("b", "2"), changed))
    assert registry.serving_generation() == generation
    after = registry.stop_serving("b", "2", actor="tests")
    assert registry.serving() == (after, (entry("a"), changed))


def test_every_change_a_server_has_to_know_of_raises_the_generation(
    registry: Registry, source: Path
) -> None:
    changes: list[Callable[[], object]] = [
        lambda: register(registry, source),
        lambda: registry.set_alias("digits", "production", "1", expected=None, actor="tests"),
        lambda: registry.serve(entry()),
        lambda: registry.stop_serving("digits", "1", actor="tests"),
        lambda: registry.set_alias("digits", "production", None, expected="1", actor="tests"),
    ]
    for change in changes:
        before = registry.serving_generation()
        change()
        assert registry.serving_generation() > before


def test_an_alias_set_to_where_it_points_is_no_move(registry: Registry, source: Path) -> None:
    register(registry, source)
    registry.set_alias("digits", "production", "1", expected=None, actor="tests")
    before = registry.serving_generation(), registry.history("digits")
    registry.set_alias("digits", "production", "1", expected="1", actor="tests")
    registry.set_alias("digits", "staging", None, expected=None, actor="tests")
    assert (registry.serving_generation(), registry.history("digits")) == before


def test_the_name_of_a_route_is_no_name_for_a_model(registry: Registry, source: Path) -> None:
    with pytest.raises(InvalidInput, match="stats"):
        register(registry, source, "stats")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "a\n", "ä", "x" * 129, "\x00"])
def test_names_that_do_not_fit_into_a_url_are_refused(
    registry: Registry, source: Path, name: str
) -> None:
    with pytest.raises(InvalidInput):
        register(registry, source, name)
    with pytest.raises(InvalidInput):
        register(registry, source, version=name)
    register(registry, source)
    with pytest.raises(InvalidInput):
        registry.set_alias("digits", name, "1", expected=None, actor="tests")


def test_files_that_cannot_be_an_artifact_are_refused(registry: Registry, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path / "missing", tmp_path, pipe, file_with(tmp_path, b"", "empty")):
        with pytest.raises(InvalidInput) as refused:
            register(registry, path)
        assert refused.value.field == "artifacts.path"
    assert registry.models() == ()


def test_registrations_that_describe_nothing_are_refused(registry: Registry, source: Path) -> None:
    onnx = ArtifactFile("onnx", source)
    for signature, artifacts, card, actor in (
        (Signature((), SIGNATURE.outputs), [onnx], CARD, "tests"),
        (Signature((TensorSpec("x", "FP8", (1,)),), SIGNATURE.outputs), [onnx], CARD, "tests"),
        (SIGNATURE, [], CARD, "tests"),
        (SIGNATURE, [onnx, onnx], CARD, "tests"),
        (SIGNATURE, [ArtifactFile("pickle", source)], CARD, "tests"),
        (SIGNATURE, [onnx], ModelCard(metrics={"accuracy": math.nan}), "tests"),
        (SIGNATURE, [onnx], ModelCard("x" * 2_000_000), "tests"),
        (SIGNATURE, [onnx], ModelCard("\udc80"), "tests"),
        (SIGNATURE, [onnx], CARD, ""),
        (SIGNATURE, [onnx], CARD, "two\nlines"),
    ):
        with pytest.raises(InvalidInput):
            registry.register(
                "m", "1", signature=signature, artifacts=artifacts, card=card, actor=actor
            )
    assert registry.models() == ()


def test_serving_entries_that_nothing_could_run_are_refused(
    registry: Registry, source: Path
) -> None:
    register(registry, source)
    good = entry()
    bad: list[ServingEntry] = [
        replace(good, placements=frozenset()),
        replace(good, placements=frozenset({"moon"})),
        replace(good, options={"max_delay_ms": math.inf}),
        replace(good, options={"a b": 1}),
        replace(good, at=math.nan),
    ]
    for each in bad:
        with pytest.raises(InvalidInput):
            registry.serve(each)
    assert registry.serving()[1] == ()
