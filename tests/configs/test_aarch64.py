"""The edge runtime on the processor of a Raspberry Pi: emulated, and as wheels that exist.

No board is needed: qemu's user emulation runs Debian's own aarch64 CPython, which is unpacked into
a folder, over the aarch64 wheels that the installer would take. It shows that they load and compute
there, and nothing about speed, drivers or an accelerator.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from packaging.utils import canonicalize_name

from tests.edge_runtime.onnx_models import save

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "configs" / "edge" / "constraints.txt"
JOIN_CONSTRAINTS = CONSTRAINTS.with_name("constraints-join.txt")
# glibc is 2.36 in bookworm and 2.41 in trixie; wheels say the oldest that they run with.
PLATFORMS = [f"manylinux{glibc}_aarch64" for glibc in ("_2_28", "_2_27", "_2_24", "_2_17", "2014")]
DEBIAN_PACKAGES = [
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "libbz2-1.0",
    "liblzma5",
    "zlib1g",
    "libssl3",
    "libexpat1",
    "libffi8",
    "libsqlite3-0",
    "libuuid1",
    "libcrypt1",
]

ANSWER = """
import asyncio, json, platform, sys
from pathlib import Path

import numpy as np

import edge_runtime.protocol.grpc_service, edge_runtime.protocol.rest
from edge_runtime.auth import Principal
from edge_runtime.backends.ort import onnxruntime
from edge_runtime.engine import Engine, EngineOptions, ModelOptions, ModelSource
from edge_runtime.protocol.service import CallContext
from edge_runtime.protocol.types import InferRequest, Tensor
from edge_runtime.service import EngineService


async def answer(folder):
    engine = Engine(EngineOptions())
    source = ModelSource.of("digits", "1", folder / "digits.onnx", "onnx", ModelOptions())
    service = EngineService(engine, [source], version="test")
    await service.load_all()
    assert service.is_model_ready("digits", None), service.health()
    images = np.load(folder / "images.npy")
    request = InferRequest("digits", None, (Tensor("x", "FP32", images),))
    deadline = asyncio.get_running_loop().time() + 60
    result = await service.infer(request, CallContext(Principal("test", frozenset()), deadline))
    await engine.close()
    return {
        "machine": platform.machine(),
        "onnxruntime": onnxruntime.__version__,
        "scores": result.response.outputs[0].data.tolist(),
    }


print(json.dumps(asyncio.run(answer(Path(sys.argv[1])))))
"""


def requirements(*extras: str) -> list[str]:
    """Return what the project asks for with these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found = [each for extra in extras for each in project["optional-dependencies"][extra]]
    return [
        each for each in (*project["dependencies"], *found) if not each.startswith("prime-spark")
    ]


def pins(*files: Path) -> dict[str, str]:
    """Return the installer's versions by name."""
    lines = [
        line for file in files or (CONSTRAINTS,) for line in file.read_text("utf-8").splitlines()
    ]
    found = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in found}


def pip(*arguments: str, timeout_s: float = 150) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)


def install_for_aarch64(
    python: str, target: Path, *more: str, extras: tuple[str, ...] = ("edge",)
) -> None:
    """Install extras as the installer does on a board, from wheels for that processor."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    for_board = ["--only-binary=:all:", "--python-version", python, "--target", str(target)]
    done = pip(
        *("install", "--quiet", "--ignore-installed", *for_board, *platforms),
        *("-c", str(CONSTRAINTS), "-c", str(JOIN_CONSTRAINTS), *more, *requirements(*extras)),
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def package_index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where no package index answers; with one, a wheel that is missing is a failure."""
    target = str(tmp_path_factory.mktemp("probe"))
    try:
        done = pip(
            *("download", "--quiet", "--no-deps", "--no-cache-dir", "--dest", target, "idna"),
            timeout_s=30,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("no package index answers")
    if done.returncode != 0:
        pytest.skip(f"no package index answers: {done.stderr.strip()[-200:]}")


@dataclass(frozen=True, slots=True)
class Board:
    """An emulated aarch64 machine. root: Debian's files; site: the wheels."""

    emulator: str
    root: Path
    site: Path

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # The default processor of qemu is none that exists; this one is in a Raspberry Pi 4.
        machine = [self.emulator, "-cpu", "cortex-a72", "-L", str(self.root)]
        return subprocess.run(
            [*machine, str(self.root / "usr" / "bin" / "python3.11"), "-B", *arguments],
            env={"PYTHONPATH": f"{self.site}:{ROOT}", "PATH": "/nowhere", "HOME": "/nowhere"},
            capture_output=True,
            text=True,
            timeout=90,
        )


@pytest.fixture(scope="module")
def cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is kept between runs, where pytest has one."""
    kept = getattr(request.config, "cache", None)
    return tmp_path_factory.mktemp("aarch64") if kept is None else Path(kept.mkdir("aarch64"))


@pytest.fixture(scope="module")
def board(package_index: None, cache: Path) -> Board:
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        _debian(["apt-get", "update", "-qq"])
        _debian(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "qemu-user-static"])
        emulator = shutil.which("qemu-aarch64-static")
        assert emulator is not None
    root = _made_once(cache, "root", DEBIAN_PACKAGES, _unpack_debian)
    contents = [*requirements("edge"), CONSTRAINTS.read_text("utf-8")]
    site = _made_once(cache, "site", contents, lambda folder: install_for_aarch64("3.11", folder))
    return Board(emulator, root, site)


def _made_once(cache: Path, name: str, key: Sequence[str], make: Callable[[Path], None]) -> Path:
    """Return a folder that `make` filled; one that was left half done is made again."""
    folder = cache / f"{name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:12]}"
    if not folder.exists():
        for old in cache.glob(f"{name}-*"):
            shutil.rmtree(old)
        half = cache / f"{name}-half-{os.getpid()}"
        half.mkdir()
        make(half)
        half.rename(folder)
    return folder


def _unpack_debian(folder: Path) -> None:
    """Put the aarch64 packages' files into a folder; this system's own lists are not touched."""
    apt = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial", "packages"):
        (apt / part).mkdir(parents=True)
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State::Lists": str(apt / "lists"),
        "Dir::State::status": "/dev/null",
        "Dir::Cache": str(apt / "cache"),
    }
    apt_get = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    _debian([*apt_get, "update"])
    _debian([*apt_get, "download", *DEBIAN_PACKAGES], cwd=apt / "packages")
    for package in sorted((apt / "packages").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True, timeout=60)
    shutil.rmtree(apt)


def _debian(command: list[str], cwd: Path | None = None) -> None:
    """Run a command of Debian's package tools; skip where that is not possible."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        pytest.skip("needs root on a Debian system, for an emulator and aarch64 packages")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"Debian's packages cannot be fetched: {command[-1]} took too long")
    if done.returncode != 0:
        pytest.skip(f"Debian's packages cannot be fetched: {done.stderr.strip()[-300:]}")


def digits_like(folder: Path) -> NDArray[np.float32]:
    """Write a small classifier and some images; return what numpy says of them."""
    rng = np.random.default_rng(20)
    first = rng.normal(0, 0.2, (64, 32)).astype(np.float32)
    second = rng.normal(0, 0.5, (32, 10)).astype(np.float32)
    images = rng.integers(0, 17, (8, 64)).astype(np.float32) / 16
    save(
        folder / "digits.onnx",
        [
            helper.make_node("MatMul", ["x", "first"], ["mixed"]),
            helper.make_node("Relu", ["mixed"], ["hidden"]),
            helper.make_node("MatMul", ["hidden", "second"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        ],
        [("x", "FP32", ("n", 64))],
        [("scores", "FP32", ("n", 10))],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    np.save(folder / "images.npy", images)
    logits = np.maximum(images @ first, 0) @ second
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return scores


@pytest.mark.timeout(300)
def test_an_emulated_board_gives_the_answer_that_this_machine_gives(
    board: Board, tmp_path: Path
) -> None:
    expected = digits_like(tmp_path)
    emulated = board.python("-c", ANSWER, str(tmp_path))
    assert emulated.returncode == 0, emulated.stderr
    native = subprocess.run(
        [sys.executable, "-c", ANSWER, str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    there, here = json.loads(emulated.stdout), json.loads(native.stdout)
    assert there["machine"] == "aarch64"
    assert there["onnxruntime"] == pins()["onnxruntime"]
    np.testing.assert_allclose(here["scores"], expected, atol=1e-5)
    np.testing.assert_allclose(there["scores"], here["scores"], atol=1e-5)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("python", ["3.11", "3.13"])
@pytest.mark.parametrize("extras", [("edge",), ("edge", "cluster")], ids=["alone", "in a cluster"])
def test_every_package_of_a_board_is_pinned_and_has_a_wheel_for_it(
    package_index: None, python: str, extras: tuple[str, ...], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    dry_run = ("--dry-run", "--report", str(report))
    install_for_aarch64(python, tmp_path / "unused", *dry_run, extras=extras)
    found = json.loads(report.read_text("utf-8"))["install"]
    names = [each["download_info"]["url"].rpartition("/")[2] for each in found]
    assert all(name.endswith(("_aarch64.whl", "-none-any.whl")) for name in names), names
    resolved = {
        canonicalize_name(each["metadata"]["name"]): each["metadata"]["version"] for each in found
    }
    files = (CONSTRAINTS, JOIN_CONSTRAINTS) if "cluster" in extras else (CONSTRAINTS,)
    assert resolved == pins(*files)


def test_a_board_gets_the_versions_that_everything_else_is_tested_with() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    tested = {canonicalize_name(name): version for name, version in tested.items()}
    board = pins(CONSTRAINTS, JOIN_CONSTRAINTS)
    emulated = board.pop("onnxruntime")
    assert tuple(map(int, emulated.split("."))) < (1, 28), "1.28 and later crash when emulated"
    wrong = [f"{name}=={tested[name]}" for name in board if board[name] != tested[name]]
    assert not wrong, f"the files in configs/edge should have {wrong}"
