"""A package is there whole or not at all; one that is damaged keeps no other from serving."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import durable, packages
from edge_runtime.engine import ModelOptions
from edge_runtime.errors import (
    Conflict,
    Corrupt,
    InvalidInput,
    NotFound,
    PrimeSparkError,
    Unavailable,
)
from edge_runtime.packages import Incoming, Package, PackageFolder, read_package
from edge_runtime.protocol.types import ParameterValue, Signature, TensorSpec
from tests.children import die_at_call, exit_status, fork, race, running
from tests.disks import fill, read_only, small_disk

NOW = 1_700_000_000.0
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 1)),))


@pytest.fixture
def folder(tmp_path: Path) -> PackageFolder:
    return PackageFolder(tmp_path / "models")


@pytest.fixture
def onnx(tmp_path: Path) -> Incoming:
    return file_of(tmp_path, b"weights")


def file_of(
    folder: Path, content: bytes, artifact_format: str = "onnx", target: str = ""
) -> Incoming:
    path = folder / f"{hashlib.sha256(content).hexdigest()[:8]}.bin"
    path.write_bytes(content)
    return Incoming(artifact_format, path, target)


def install(
    folder: PackageFolder,
    *files: Incoming,
    model: str = "digits",
    version: str = "1",
    now: float = NOW,
    options: Mapping[str, ParameterValue] | None = None,
) -> Package:
    return folder.install(model, version, files, options=options, installed_at=now)


def keys(folder: PackageFolder) -> list[tuple[str, str]]:
    return [package.key for package in folder.scan()[0]]


def problems(folder: PackageFolder) -> list[str]:
    return folder.scan()[1]


def everything(root: Path) -> set[str]:
    """Return all that is below a folder, hidden files too."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}


# Installing and removing


def test_a_version_is_installed_found_and_gives_what_an_engine_loads(
    folder: PackageFolder, tmp_path: Path
) -> None:
    files = [
        file_of(tmp_path, b"fp32"),
        file_of(tmp_path, b"int8", "onnx-int8"),
        file_of(tmp_path, b"hef", "hef", "hailo8"),
    ]
    folder.install(
        "digits", "v1.0", files, options={"max_queue": 3}, signature=SIGNATURE, installed_at=NOW
    )
    ([package], found_problems) = folder.scan()
    assert found_problems == []
    source = package.source(ModelOptions(max_batch_size=4))
    assert (source.model, source.version, source.signature) == ("digits", "v1.0", SIGNATURE)
    assert source.options == ModelOptions(max_batch_size=4, max_queue=3)
    assert [(v.format, v.target, v.path.read_bytes()) for v in source.variants] == [
        ("onnx", "", b"fp32"),
        ("onnx-int8", "", b"int8"),
        ("hef", "hailo8", b"hef"),
    ]
    for variant in source.variants:
        variant.verify()
    assert package.manifest.artifacts[1].size_bytes == 4


def test_nothing_but_the_package_is_left(folder: PackageFolder, onnx: Incoming) -> None:
    install(folder, onnx)
    assert everything(folder.root) == {
        "digits",
        "digits/1",
        "digits/1/package.json",
        "digits/1/onnx.onnx",
    }


def test_every_byte_is_on_the_device_before_the_version_appears(
    folder: PackageFolder, tmp_path: Path, onnx: Incoming
) -> None:
    """The kernel writes back what is dirty at some time; only fsync tells when."""
    trace = tmp_path / "calls"

    def work() -> None:
        _log_calls(trace)
        install(folder, onnx)

    assert exit_status(fork(work)) == 0
    calls = trace.read_text().split()
    appears = calls.index("rename")
    # The artifact, its manifest, the folder of both, and the folders above, which are new.
    assert calls[:appears].count("fsync") >= 5
    assert calls[appears:].count("fsync") == 1
    assert calls.index("replace") < appears


def _log_calls(trace: Path) -> None:
    descriptor = os.open(trace, os.O_WRONLY | os.O_CREAT)

    def on_event(frame: object, event: str, function: object) -> None:
        name = getattr(function, "__name__", "")
        if event == "c_call" and name in ("fsync", "rename", "replace"):
            os.write(descriptor, f"{name}\n".encode())

    sys.setprofile(on_event)


def test_the_same_files_again_are_no_change(folder: PackageFolder, tmp_path: Path) -> None:
    files = [file_of(tmp_path, b"a"), file_of(tmp_path, b"b", "onnx-int8")]
    first = install(folder, *files, options={"max_queue": 3})
    before = (first.folder / "package.json").stat()
    again = install(folder, *reversed(files), options={"max_queue": 3}, now=NOW + 9)
    assert again.manifest == first.manifest
    assert (first.folder / "package.json").stat().st_ino == before.st_ino


def test_the_same_files_may_be_served_otherwise(folder: PackageFolder, onnx: Incoming) -> None:
    install(folder, onnx, options={"max_queue": 3})
    install(folder, onnx, options={"max_batch_size": 2})
    ([package], _) = folder.scan()
    assert package.manifest.options == {"max_batch_size": 2}
    assert package.manifest.installed_at == NOW


def test_other_files_under_the_same_version_are_a_conflict(
    folder: PackageFolder, tmp_path: Path, onnx: Incoming
) -> None:
    install(folder, onnx)
    before = everything(folder.root)
    for others in ([file_of(tmp_path, b"other")], [onnx, file_of(tmp_path, b"more", "onnx-int8")]):
        with pytest.raises(Conflict, match="digits:1 is installed with another content") as refused:
            install(folder, *others)
        assert "new one" in str(refused.value.hint)
    assert everything(folder.root) == before
    read_package(folder.root / "digits" / "1").source(ModelOptions()).variants[0].verify()


def test_a_file_that_is_not_what_was_sent_is_refused_and_nothing_is_left(
    folder: PackageFolder, onnx: Incoming
) -> None:
    wrong = Incoming("onnx", onnx.path, digest=hashlib.sha256(b"other").hexdigest())
    with pytest.raises(Corrupt, match="is not what was sent"):
        install(folder, wrong)
    assert everything(folder.root) == set()
    right = Incoming("onnx", onnx.path, digest=hashlib.sha256(b"weights").hexdigest())
    install(folder, right)
    assert keys(folder) == [("digits", "1")]


def test_removing_leaves_other_versions_and_the_last_one_takes_the_model_along(
    folder: PackageFolder, onnx: Incoming
) -> None:
    install(folder, onnx, version="1")
    install(folder, onnx, version="2")
    folder.remove("digits", "1")
    assert keys(folder) == [("digits", "2")]
    assert not folder.has("digits", "1")
    assert folder.has("digits", "2")
    folder.remove("digits", "2")
    assert everything(folder.root) == set()
    with pytest.raises(NotFound, match="digits:2 is not installed"):
        folder.remove("digits", "2")


def test_a_damaged_version_can_be_removed_and_installed_again(
    folder: PackageFolder, onnx: Incoming
) -> None:
    package = install(folder, onnx)
    (package.folder / "package.json").write_bytes(b"{")
    with pytest.raises(Corrupt, match="is damaged") as refused:
        install(folder, onnx)
    assert "remove it" in str(refused.value.hint)
    folder.remove("digits", "1")
    install(folder, onnx)
    assert (keys(folder), problems(folder)) == ([("digits", "1")], [])


def test_of_a_link_the_link_is_removed_and_not_what_it_points_to(
    folder: PackageFolder, onnx: Incoming, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(install(folder, onnx).folder, elsewhere)
    folder.remove("digits", "1")
    folder.root.joinpath("digits").mkdir()
    (folder.root / "digits" / "1").symlink_to(elsewhere)
    assert keys(folder) == [("digits", "1")]
    folder.remove("digits", "1")
    assert everything(folder.root) == set()
    assert (elsewhere / "onnx.onnx").read_bytes() == b"weights"


def test_versions_come_in_the_order_of_their_installation_whatever_the_clock_says(
    folder: PackageFolder, onnx: Incoming
) -> None:
    """A box without a battery for its clock is in 1970 after a power cut."""
    for version, now in (("b", NOW), ("a", 0.0), ("c", NOW - 1), ("d", 4e9), ("e", NOW)):
        install(folder, onnx, version=version, now=now)
    assert [version for _, version in keys(folder)] == ["b", "a", "c", "d", "e"]


# What is refused


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "-f", "a b", "a\0", "a\n", "é", "x" * 129],
)
@pytest.mark.parametrize("what", ["model", "version", "target"])
def test_a_name_that_is_no_name_is_refused_before_anything_is_written(
    folder: PackageFolder, onnx: Incoming, what: str, name: str
) -> None:
    if what == "target":
        if not name:
            return  # no target: it runs anywhere
        files, names = [Incoming("hef", onnx.path, name)], {}
    else:
        files, names = [onnx], {what: name}
    with pytest.raises(InvalidInput, match=f"is not a name for a {what}") as refused:
        install(folder, *files, **names)  # type: ignore[arg-type]
    assert refused.value.field == what
    assert not folder.root.exists()
    if what != "target":
        with pytest.raises(InvalidInput, match=f"is not a name for a {what}"):
            folder.remove(**{"model": "m", "version": "1", what: name})


def test_what_cannot_be_a_package_is_refused(folder: PackageFolder, onnx: Incoming) -> None:
    def refused(*files: Incoming, **options: ParameterValue) -> str:
        with pytest.raises(InvalidInput) as error:
            install(folder, *files, options=options)
        return error.value.message

    assert "at least one artifact" in refused()
    assert "same format and target" in refused(onnx, onnx)
    assert "unknown artifact format 'tflite'" in refused(Incoming("tflite", onnx.path))
    assert "unknown serving option 'max_batch'" in refused(onnx, max_batch=1)
    assert "must be 1 or more" in refused(onnx, max_batch_size=0)
    assert "must be a number" in refused(onnx, max_queue="many")
    assert "whole number" in refused(onnx, max_queue=1.5)
    assert not folder.root.exists()


@pytest.mark.parametrize("kind", ["absent", "a folder"])
def test_a_source_that_cannot_be_read_is_named_and_the_disk_is_not_blamed(
    folder: PackageFolder, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "weights.onnx"
    if kind == "a folder":
        path.mkdir()
    with pytest.raises(Unavailable, match="digits:1 cannot be installed") as refused:
        install(folder, Incoming("onnx", path))
    assert refused.value.hint == f"look at {path}"
    assert everything(folder.root) == set()


Damage = Callable[[Path], object]


def manifest_with(**changes: Any) -> Damage:
    def damage(path: Path) -> None:
        document = json.loads((path / "package.json").read_bytes())
        (path / "package.json").write_text(json.dumps({**document, **changes}))

    return damage


def artifact_with(**changes: Any) -> Damage:
    def damage(path: Path) -> None:
        document = json.loads((path / "package.json").read_bytes())
        document["artifacts"][0].update(changes)
        (path / "package.json").write_text(json.dumps(document))

    return damage


def a_folder_instead(path: Path) -> None:
    (path / "package.json").unlink()
    (path / "package.json").mkdir()


DAMAGES: Mapping[str, tuple[Damage, str]] = {
    "no manifest": (lambda p: (p / "package.json").unlink(), "it has no package.json"),
    "empty": (lambda p: (p / "package.json").write_bytes(b""), "is damaged"),
    "cut off": (lambda p: os.truncate(p / "package.json", 40), "is damaged"),
    "no text": (lambda p: (p / "package.json").write_bytes(b"\xff\xfe"), "is damaged"),
    "deep": (lambda p: (p / "package.json").write_bytes(b"[" * 100_000), "is damaged"),
    "a list": (lambda p: (p / "package.json").write_bytes(b"[]"), "is damaged"),
    "a folder": (a_folder_instead, "cannot be read: Is a directory"),
    "other model": (manifest_with(model="other"), "belongs to other:1"),
    "other version": (manifest_with(version="2"), "belongs to bad:2"),
    "later format": (manifest_with(format=2), "is of format 2; this is for 1"),
    "no artifacts": (manifest_with(artifacts=None), "is damaged"),
    "up": (artifact_with(file="../../good/1/onnx.onnx"), "outside of the package"),
    "parent": (artifact_with(file=".."), "outside of the package"),
    "itself": (artifact_with(file=""), "outside of the package"),
    "absolute": (artifact_with(file="/etc/passwd"), "outside of the package"),
    "a null": (artifact_with(file="a\0b"), "outside of the package"),
    "below": (artifact_with(file="a/b"), "outside of the package"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_package_is_reported_with_its_name_and_the_others_are_found(
    folder: PackageFolder, onnx: Incoming, damage: str
) -> None:
    install(folder, onnx, model="good")
    bad = install(folder, onnx, model="bad")
    make, reason = DAMAGES[damage]
    make(bad.folder)
    found, said = folder.scan()
    assert [package.key for package in found] == [("good", "1")]
    (problem,) = said
    assert problem.startswith("bad/1")
    assert reason in problem


def test_a_package_whose_folder_has_a_name_that_is_no_name_is_reported(
    folder: PackageFolder, onnx: Incoming
) -> None:
    path = install(folder, onnx).folder
    manifest_with(model="a b")(path)
    path.parent.rename(folder.root / "a b")
    assert keys(folder) == []
    assert problems(folder) == ["a b/1/package.json: 'a b' is not a name for a model"]


def test_a_folder_whose_name_is_no_text_is_reported_in_text(
    folder: PackageFolder, onnx: Incoming
) -> None:
    install(folder, onnx)
    (folder.root / os.fsdecode(b"caf\xe9") / "1").mkdir(parents=True)
    (problem,) = problems(folder)
    assert problem.startswith("caf\\udce9/1 is not a model package")
    problem.encode()
    assert keys(folder) == [("digits", "1")]


def test_foreign_files_and_folders_are_left_alone(folder: PackageFolder, onnx: Incoming) -> None:
    package = install(folder, onnx)
    (folder.root / "README").write_text("mine")
    (folder.root / "digits" / "notes.txt").write_text("mine")
    (package.folder / "notes.txt").write_text("mine")
    (folder.root / "lost+found" / "#1").mkdir(parents=True)
    (folder.root / ".cache" / "1").mkdir(parents=True)
    (folder.root / "photos" / "2024").mkdir(parents=True)
    before = everything(folder.root)
    assert keys(folder) == [("digits", "1")]
    assert problems(folder) == ["photos/2024 is not a model package: it has no package.json"]
    folder.sweep()
    assert everything(folder.root) == before


def test_a_damaged_artifact_is_noticed_when_it_is_loaded(
    folder: PackageFolder, onnx: Incoming
) -> None:
    package = install(folder, onnx)
    (variant,) = package.source(ModelOptions()).variants
    variant.verify()
    for content in (b"weightz", b"weight", b"weights!", b""):
        variant.path.write_bytes(content)
        with pytest.raises(Corrupt, match=r"onnx\.onnx is not what was installed"):
            variant.verify()
    variant.path.unlink()
    with pytest.raises(Corrupt, match=r"onnx\.onnx cannot be read: No such file"):
        variant.verify()
    variant.path.symlink_to("/etc/hostname")
    with pytest.raises(Corrupt):
        variant.verify()
    assert (keys(folder), problems(folder)) == ([("digits", "1")], []), "manifests only are read"


@pytest.mark.parametrize("harm", ["changed", "shorter", "gone", "a link", "a pipe"])
def test_the_same_files_again_mend_what_was_damaged(
    folder: PackageFolder, tmp_path: Path, harm: str
) -> None:
    files = [file_of(tmp_path, b"weights"), file_of(tmp_path, b"others", "onnx-int8")]
    package = install(folder, *files, options={"max_queue": 3})
    whole, damaged = (variant.path for variant in package.source(ModelOptions()).variants)
    untouched = whole.stat().st_ino
    damaged.unlink()
    match harm:
        case "changed" | "shorter":
            damaged.write_bytes(b"othern" if harm == "changed" else b"oth")
        case "a link":
            damaged.symlink_to(whole)
        case "a pipe":
            os.mkfifo(damaged)
    again = install(folder, *files, options={"max_queue": 3})
    assert again.manifest == package.manifest
    for variant in again.source(ModelOptions()).variants:
        variant.verify()
    assert damaged.is_file()
    assert not damaged.is_symlink()
    assert (whole.read_bytes(), whole.stat().st_ino) == (b"weights", untouched)
    assert (keys(folder), problems(folder)) == ([("digits", "1")], [])


def test_other_files_mend_nothing(folder: PackageFolder, onnx: Incoming, tmp_path: Path) -> None:
    (variant,) = install(folder, onnx).source(ModelOptions()).variants
    variant.path.write_bytes(b"damaged")
    with pytest.raises(Conflict):
        install(folder, file_of(tmp_path, b"something else"))
    assert variant.path.read_bytes() == b"damaged"


def test_a_pipe_in_an_artifact_s_place_is_not_waited_for(
    folder: PackageFolder, onnx: Incoming
) -> None:
    (variant,) = install(folder, onnx).source(ModelOptions()).variants
    variant.path.unlink()
    os.mkfifo(variant.path)
    with pytest.raises(Corrupt, match=r"onnx\.onnx is not a file"):
        variant.verify()


def test_an_option_that_this_version_does_not_know_is_said_when_it_would_be_loaded(
    folder: PackageFolder, onnx: Incoming
) -> None:
    manifest_with(options={"turbo": 1})(install(folder, onnx).folder)
    ([package], said) = folder.scan()
    assert said == []
    with pytest.raises(InvalidInput, match="unknown serving option 'turbo'"):
        package.source(ModelOptions())


def test_a_folder_that_is_not_there_holds_nothing(folder: PackageFolder) -> None:
    assert folder.scan() == ([], [])
    folder.sweep()
    assert not folder.root.exists()


def test_a_file_in_the_folder_s_place_is_reported(folder: PackageFolder, onnx: Incoming) -> None:
    folder.root.write_text("no folder")
    assert folder.scan() == ([], ["the folder models cannot be read: Not a directory"])
    with pytest.raises(Unavailable):
        install(folder, onnx)


def test_a_folder_that_this_user_may_not_read_is_reported_and_the_others_are_found() -> None:
    """`lost+found`, for one, where the models have a disk of their own."""
    root = Path(tempfile.mkdtemp())  # a test's own folder is root's alone
    try:
        folder = PackageFolder(root / "models")
        install(folder, file_of(root, b"weights"))
        for name in ("lost+found", "private"):
            (folder.root / name / "1").mkdir(parents=True)
            (folder.root / name).chmod(0)
        for path in (root, *root.rglob("*")):
            path.chmod(
                0o755
                if path.is_dir() and path.name not in ("lost+found", "private")
                else path.stat().st_mode & 0o7777
            )

        def work() -> None:
            if os.geteuid() == 0:
                os.setuid(65534)
            assert keys(folder) == [("digits", "1")]
            assert problems(folder) == ["the folder private cannot be read: Permission denied"]

        assert exit_status(fork(work)) == 0
    finally:
        for name in ("lost+found", "private"):
            (root / "models" / name).chmod(0o755)
        shutil.rmtree(root)


# Interruptions


def test_an_install_killed_at_any_step_leaves_the_version_whole_or_absent(
    folder: PackageFolder, tmp_path: Path
) -> None:
    files = [file_of(tmp_path, b"a" * 100_000), file_of(tmp_path, b"b" * 10, "onnx-int8")]
    install(folder, *files, version="0")
    is_there: list[bool] = []
    for step in range(1, 1000):
        status = exit_status(fork(lambda step=step: _install_and_die(step, folder, files)))  # type: ignore[misc]
        is_there.append(_is_whole(folder, files))
        if status == 0:
            break
        if is_there[-1]:
            folder.remove("digits", "1")
    assert len(is_there) >= 50, "the steps were not counted"
    assert is_there[-1]
    assert not is_there[0]


def _install_and_die(step: int, folder: PackageFolder, files: list[Incoming]) -> None:
    die_at_call(step, packages.__file__, durable.__file__, pathlib_source(), shutil.__file__)
    install(folder, *files)


def pathlib_source() -> str:
    """Return the module or package that `Path` is from."""
    return str(Path(os.__file__).with_name("pathlib"))


def _is_whole(folder: PackageFolder, files: list[Incoming]) -> bool:
    """Check what a killed install left; tell whether the version is there."""
    found, said = folder.scan()
    assert said == []
    for package in found:
        for variant in package.source(ModelOptions()).variants:
            variant.verify()
        assert len(package.manifest.artifacts) == len(files)
    folder.sweep()
    left = everything(folder.root)
    assert not {name for name in left if "staged" in name}
    versions = {package.key[1] for package in found}
    assert {name for name in left if name.count("/") == 1} == {f"digits/{v}" for v in versions}
    return "1" in versions


@pytest.mark.parametrize("seed", range(10))
def test_an_install_killed_in_the_middle_of_a_large_file_leaves_nothing_that_counts(
    folder: PackageFolder, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    size = 8 << 20
    large = file_of(tmp_path, rng.randbytes(size))
    until = rng.randrange(size)

    def staged_bytes() -> int:
        return sum(_size(path) for path in folder.root.glob("*/.staged-*/*.onnx"))

    with running(lambda: install(folder, large)):
        while staged_bytes() < until and not folder.has("digits", "1"):
            pass
    _is_whole(folder, [large])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_removal_killed_at_any_step_leaves_the_version_whole_or_absent(
    folder: PackageFolder, onnx: Incoming
) -> None:
    is_there: list[bool] = []
    for step in range(1, 200):
        install(folder, onnx)

        def work(step: int = step) -> None:
            die_at_call(
                step, packages.__file__, durable.__file__, pathlib_source(), shutil.__file__
            )
            folder.remove("digits", "1")

        status = exit_status(fork(work))
        is_there.append(_is_whole(folder, [onnx]))
        if status == 0:
            break
    assert len(is_there) > 5
    assert is_there == sorted(is_there, reverse=True), "once gone, it stays away"
    assert not is_there[-1]


def test_an_install_that_goes_on_is_not_swept(folder: PackageFolder, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done: list[Package] = []
    thread = threading.Thread(target=lambda: done.append(install(folder, Incoming("onnx", pipe))))
    thread.start()
    with pipe.open("wb") as sending:  # it is copied now, until this end is closed
        sending.write(b"half")
        sending.flush()
        folder.sweep()
        assert len(list(folder.root.glob("*/.staged-*"))) == 1
        sending.write(b"whole")
    thread.join()
    assert keys(folder) == [("digits", "1")]
    assert (done[0].folder / "onnx.onnx").read_bytes() == b"halfwhole"


# Disks


def test_a_full_disk_is_unavailable_says_what_to_do_and_keeps_nothing(
    tmp_path: Path, onnx: Incoming
) -> None:
    with small_disk(tmp_path / "disk", 2 << 20) as disk:
        folder = PackageFolder(disk / "models")
        install(folder, onnx, model="good")
        before = everything(folder.root)
        with pytest.raises(Unavailable, match="No space left on device") as refused:
            install(folder, file_of(tmp_path, bytes(3 << 20)))
        assert refused.value.hint == f"make room on the disk of {folder.root}"
        assert everything(folder.root) == before
        assert (keys(folder), problems(folder)) == ([("good", "1")], [])
        fill(disk)
        folder.remove("good", "1")
        install(folder, onnx)


@pytest.mark.parametrize("left", range(5))
def test_wherever_the_disk_becomes_full_nothing_is_left(
    tmp_path: Path, onnx: Incoming, left: int
) -> None:
    """Of pages that are left, each is enough for one more file or folder."""
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        folder = PackageFolder(disk / "models")
        install(folder, onnx, model="good")
        before = everything(folder.root)
        fill(disk, left * 4096)
        try:
            install(folder, onnx)
        except Unavailable:
            assert everything(folder.root) == before
        else:
            assert left > 0
            assert keys(folder) == [("digits", "1"), ("good", "1")]


def test_on_a_disk_that_cannot_be_written_everything_is_found_and_nothing_changes(
    folder: PackageFolder, onnx: Incoming, tmp_path: Path
) -> None:
    install(folder, onnx)
    (folder.root / "digits" / ".staged-dead").mkdir()
    with read_only(folder.root):
        folder.sweep()
        assert keys(folder) == [("digits", "1")]
        for change in (
            lambda: install(folder, onnx, version="2"),
            lambda: folder.remove("digits", "1"),
        ):
            with pytest.raises(Unavailable, match="Read-only file system"):
                change()
        assert keys(folder) == [("digits", "1")]


# Many at once


def test_of_many_who_install_the_same_all_are_told_that_it_is_there(
    folder: PackageFolder, onnx: Incoming
) -> None:
    versions = [str(number) for number in range(60)]

    def work(_: int) -> list[str]:
        return [install(folder, onnx, version=version).folder.name for version in versions]

    assert race(6, work) == [versions] * 6
    assert sorted(version for _, version in keys(folder)) == sorted(versions)
    assert problems(folder) == []
    assert not list(folder.root.glob("*/.staged-*"))


@pytest.mark.parametrize("is_same", [True, False])
def test_whoever_comes_in_the_moment_before_a_version_appears_is_first(
    folder: PackageFolder, onnx: Incoming, tmp_path: Path, is_same: bool
) -> None:
    other = onnx if is_same else file_of(tmp_path, b"other")
    told, tell = os.pipe()
    wait, go_on = os.pipe()

    def second() -> None:
        _stop_before("rename", tell, wait)
        try:
            install(folder, other)
        except Conflict:
            os._exit(4)

    pid = fork(second)
    os.read(told, 1)
    install(folder, onnx)
    os.write(go_on, b"x")
    assert exit_status(pid) == (0 if is_same else 4)
    ([package], _) = folder.scan()
    assert (package.folder / "onnx.onnx").read_bytes() == b"weights"
    for descriptor in (told, tell, wait, go_on):
        os.close(descriptor)


def _stop_before(name: str, tell: int, wait: int) -> None:
    """Have this process wait before its next call of this function of the system."""

    def on_event(frame: object, event: str, function: object) -> None:
        if event == "c_call" and getattr(function, "__name__", "") == name:
            sys.setprofile(None)
            os.write(tell, b"x")
            os.read(wait, 1)

    sys.setprofile(on_event)


def test_of_many_who_install_different_files_as_one_version_one_wins(
    folder: PackageFolder, tmp_path: Path
) -> None:
    files = [file_of(tmp_path, os.urandom(1 << 16)) for _ in range(8)]

    def work(number: int) -> str:
        try:
            install(folder, files[number])
        except PrimeSparkError as error:
            return error.code
        return "installed"

    said = race(8, work)
    assert sorted(said) == ["conflict"] * 7 + ["installed"]
    ([package], _) = folder.scan()
    assert (package.folder / "onnx.onnx").read_bytes() == files[
        said.index("installed")
    ].path.read_bytes()


def test_installing_removing_and_sweeping_at_the_same_time_ends_well(
    folder: PackageFolder, onnx: Incoming
) -> None:
    def work(number: int) -> list[str]:
        wrong: list[str] = []
        for turn in range(40):
            try:
                match number:
                    case 0:
                        folder.sweep()
                    case 1 | 2:
                        folder.remove("digits", str(turn % 2))
                    case _:
                        install(folder, onnx, version=str(turn % 2))
            except NotFound:
                assert number in (1, 2)
            except PrimeSparkError as error:
                wrong.append(error.message)
        return wrong

    assert race(6, work) == [[]] * 6
    folder.sweep()
    assert problems(folder) == []
    assert not list(folder.root.glob("*/.staged-*"))


def test_a_scan_finds_what_stays_while_others_come_and_go(
    folder: PackageFolder, onnx: Incoming
) -> None:
    install(folder, onnx, model="stays")

    def come_and_go() -> None:
        while True:
            install(folder, onnx, model="guest")
            folder.remove("guest", "1")

    with running(come_and_go):
        until = time.monotonic() + 1.0
        scans = 0
        while scans <= 50 or time.monotonic() < until:
            found, said = folder.scan()
            assert ("stays", "1") in [package.key for package in found]
            assert said == []
            scans += 1


def test_a_thousand_packages_are_found_in_a_second(folder: PackageFolder, onnx: Incoming) -> None:
    first = install(folder, onnx, model="m0")
    manifest = (first.folder / "package.json").read_text()
    for number in range(1, 1000):
        path = folder.root / f"m{number}" / "1"
        path.mkdir(parents=True)
        (path / "package.json").write_text(manifest.replace('"m0"', f'"m{number}"'))
    began = time.process_time()
    assert len(folder.scan()[0]) == 1000
    assert time.process_time() - began < 1.0


def test_only_this_user_can_read_nothing_more_than_the_umask_allows(
    folder: PackageFolder, onnx: Incoming
) -> None:
    before = os.umask(0o077)
    try:
        package = install(folder, onnx)
    finally:
        os.umask(before)
    for path in (package.folder, *package.folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_a_child_that_is_killed_ends_by_that_signal() -> None:
    """What the tests above rely on."""
    assert exit_status(fork(lambda: os.kill(os.getpid(), signal.SIGKILL))) == -signal.SIGKILL
