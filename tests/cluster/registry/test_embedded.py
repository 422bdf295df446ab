"""The embedded registry's own promises: damage is noticed, and trouble with the disk is named."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from cluster.registry import EmbeddedRegistry, ModelCard, ModelVersion
from edge_runtime.errors import Corrupt, NotFound, PrimeSparkError, Unavailable
from tests.children import exit_status, fork
from tests.contract.registries import entry, file_with, register

NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return file_with(tmp_path, b"weights")


def _flip(path: Path, offset: int) -> None:
    mode = path.stat().st_mode
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x01
    path.write_bytes(content)
    path.chmod(mode)


def _sql(root: Path, *statements: str) -> None:
    with closing(sqlite3.connect(root / "registry.sqlite")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_flipped_bit_in_an_artifact_is_found_and_healed_by_registering_it_again(
    root: Path, source: Path
) -> None:
    registry = EmbeddedRegistry(root)
    (artifact,) = register(registry, source).artifacts
    _flip(registry.artifact_path(artifact), 3)
    with pytest.raises(Corrupt):
        registry.artifact_path(artifact, verify=True)
    register(registry, source, version="2")
    assert registry.artifact_path(artifact, verify=True).read_bytes() == b"weights"


def test_a_missing_or_shortened_artifact_is_found_without_reading_it(
    root: Path, source: Path
) -> None:
    registry = EmbeddedRegistry(root)
    (artifact,) = register(registry, source).artifacts
    path = registry.artifact_path(artifact)
    path.chmod(0o600)
    path.write_bytes(b"weight")
    with pytest.raises(Corrupt):
        registry.artifact_path(artifact)
    path.unlink()
    with pytest.raises(Corrupt):
        registry.artifact_path(artifact)


def test_an_edited_manifest_is_found(root: Path, source: Path) -> None:
    register(EmbeddedRegistry(root), source)
    _sql(
        root,
        "DROP TRIGGER version_never_update",
        "UPDATE version SET manifest = replace(manifest, '0.98', '0.99')",
    )
    registry = EmbeddedRegistry(root)
    for call in (registry.get, registry.resolve):
        with pytest.raises(Corrupt):
            call("digits", "1")
    with pytest.raises(Corrupt):
        registry.versions("digits")


def test_versions_and_history_cannot_be_changed_by_sql_either(root: Path, source: Path) -> None:
    register(EmbeddedRegistry(root), source)
    for statement in (
        "UPDATE version SET manifest = ''",
        "DELETE FROM version",
        "UPDATE history SET actor = 'nobody'",
        "DELETE FROM history",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            _sql(root, statement)


def test_whatever_bit_of_the_database_flips_only_our_errors_come_out(
    root: Path, source: Path, tmp_path: Path
) -> None:
    registry = EmbeddedRegistry(root)
    registered = register(registry, source)
    registry.set_alias("digits", "production", "1", expected=None, actor="tests")
    registry.serve(entry())
    registry.close()
    whole = root / "registry.sqlite"
    found_damage = 0
    for offset in range(0, whole.stat().st_size, 97):
        copy = tmp_path / "copy"
        copy.mkdir()
        shutil.copy(whole, copy)
        _flip(copy / whole.name, offset)
        damaged = EmbeddedRegistry(copy)
        calls: list[Callable[[], object]] = [
            partial(damaged.get, "digits", "1"),
            partial(damaged.resolve, "digits", None),
            partial(damaged.history, "digits"),
            damaged.serving,
        ]
        for call in calls:
            try:
                result = call()
            except (Corrupt, Unavailable, NotFound):
                found_damage += 1
            else:
                if isinstance(result, ModelVersion):
                    assert (result.digest, result.card) == (registered.digest, registered.card)
        damaged.close()
        shutil.rmtree(copy)
    assert found_damage > 10


@pytest.mark.parametrize(
    "content", [b"not a database" * 1000, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_file_that_is_no_database_is_refused(root: Path, content: bytes) -> None:
    root.mkdir()
    file_with(root, content, "registry.sqlite")
    with pytest.raises(Corrupt):
        EmbeddedRegistry(root).models()


def test_a_database_of_somebody_else_is_refused(root: Path) -> None:
    root.mkdir()
    _sql(root, "CREATE TABLE theirs (x)")
    with pytest.raises(Corrupt, match="is not the model registry"):
        EmbeddedRegistry(root).models()


def test_a_newer_format_is_refused_and_left_alone(root: Path, source: Path) -> None:
    registry = EmbeddedRegistry(root)
    register(registry, source)
    registry.close()
    _sql(root, "PRAGMA user_version = 2")
    with pytest.raises(Unavailable, match="version 2"):
        EmbeddedRegistry(root).models()
    _sql(root, "PRAGMA user_version = 1")
    assert EmbeddedRegistry(root).models() == ("digits",)


def test_a_lost_database_is_not_taken_for_an_empty_registry(root: Path, source: Path) -> None:
    registry = EmbeddedRegistry(root)
    register(registry, source)
    registry.close()
    (root / "registry.sqlite").unlink()
    with pytest.raises(Corrupt, match="is gone"):
        EmbeddedRegistry(root)


def test_a_busy_database_says_when_to_come_back_and_can_still_be_read(
    root: Path, source: Path
) -> None:
    registry = EmbeddedRegistry(root, busy_timeout_s=0.05)
    register(registry, source)
    blocker = sqlite3.connect(root / "registry.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="busy") as refused:
        register(registry, source, version="2")
    assert refused.value.retry_after_s is not None
    assert registry.resolve("digits", None).version == "1"
    blocker.execute("ROLLBACK")
    blocker.close()
    assert register(registry, source, version="2").version == "2"
    assert list((root / "staging").iterdir()) == []


def test_a_full_disk_while_copying_leaves_nothing(root: Path, tmp_path: Path) -> None:
    source = file_with(tmp_path, bytes(1 << 20))
    assert exit_status(fork(lambda: _with_a_full_disk(root, source, ModelCard()))) == 0
    registry = EmbeddedRegistry(root)
    assert registry.models() == ()
    assert list((root / "staging").iterdir()) == []
    register(registry, source)


def test_a_full_disk_while_committing_leaves_nothing(root: Path, source: Path) -> None:
    card = ModelCard("x" * 900_000)
    assert exit_status(fork(lambda: _with_a_full_disk(root, source, card))) == 0
    registry = EmbeddedRegistry(root)
    assert registry.models() == ()
    assert registry.history("digits") == ()
    register(registry, source, card=card)


def _with_a_full_disk(root: Path, source: Path, card: ModelCard) -> None:
    """Register where no file may grow over 512 KiB (the kernel's limit for a process)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (512 << 10, 512 << 10))
    registry = EmbeddedRegistry(root)
    with pytest.raises(Unavailable, match="cannot be used"):
        register(registry, source, card=card)
    assert registry.models() == ()


@pytest.fixture
def foreign_folder() -> Iterator[Path]:
    """A folder that the user `nobody` can enter and may not write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o700)


def test_a_folder_that_may_not_be_written_is_named(foreign_folder: Path) -> None:
    def work() -> None:
        if os.geteuid() == 0:
            os.setresuid(NOBODY, NOBODY, NOBODY)
        for root in (foreign_folder, foreign_folder / "registry"):
            with pytest.raises(Unavailable) as refused:
                EmbeddedRegistry(root).models()
            assert str(foreign_folder) in refused.value.message

    assert exit_status(fork(work)) == 0


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    root = file_with(tmp_path, b"", "registry")
    with pytest.raises(PrimeSparkError, match="registry"):
        EmbeddedRegistry(root).models()


def test_files_of_the_registry_are_private(root: Path, source: Path) -> None:
    registry = EmbeddedRegistry(root)
    register(registry, source)
    for path in (root, *root.rglob("*")):
        allowed = 0o777 if "objects" in path.parts and path.is_file() else 0o700
        assert path.stat().st_mode & 0o777 & ~allowed == 0, path


def test_a_registry_that_was_opened_before_a_fork_refuses_to_work_in_the_child(root: Path) -> None:
    registry = EmbeddedRegistry(root)
    registry.models()

    def work() -> None:
        with pytest.raises(RuntimeError, match="fork"):
            registry.models()

    assert exit_status(fork(work)) == 0
    assert registry.models() == ()
