"""The installer of the edge runtime, run below a folder that stands for a box's root."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.config import load_settings
from cluster.home import Home

ROOT = Path(__file__).parents[2]
EDGE = ROOT / "configs" / "edge"
INSTALLER = EDGE / "install.sh"
NO_INDEX = {
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_INDEX_URL": "http://127.0.0.1:9/nothing-listens-here",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
    "PIP_RETRIES": "0",
}
# Bytecode is most of the time and of the files of an installation. (Of pip's options that begin
# with "no" a false value is what switches them on.)
NO_BYTECODE = {"PIP_NO_COMPILE": "0", "PYTHONDONTWRITEBYTECODE": "1"}

Tree = dict[str, tuple[str, int, int]]


def install(
    *arguments: str | Path,
    script: Path = INSTALLER,
    python: str | Path = sys.executable,
    tools: Path | None = None,
    user: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the installer. tools: a folder of commands put before the system's."""
    path = os.environ["PATH"] if tools is None else f"{tools}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(script), *map(str, arguments)],
        env={**os.environ, **NO_INDEX, **NO_BYTECODE, "PYTHON": str(python), "PATH": path},
        user=user,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=240,
    )


def command(folder: Path, name: str, says: str) -> Path:
    """Write a command that only says something; return the folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)
    return folder


def tree(folder: Path) -> Tree:
    """Return every file below a folder: what a link names, mode, time of the last change."""
    found: Tree = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        link = str(path.readlink()) if stat.S_ISLNK(status.st_mode) else ""
        found[str(path.relative_to(folder))] = (link, status.st_mode, status.st_mtime_ns)
    return found


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """The root of a box with trixie, on which nothing is installed."""
    return new_box(tmp_path / "box")


def new_box(root: Path, codename: str = "trixie") -> Path:
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "os-release").write_text(f'ID=debian\nVERSION_CODENAME="{codename}"\n')
    return root


# --- options and machines ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--whel", "x.whl"],
        ["--no-start=1"],
        ["--colour=red"],
        ["north"],
        ["--site"],
        ["--site="],
        ["--site", "North_1"],
        ["--site", "a;reboot"],
        ["--home", "data"],
        ["--home", "/data/../etc"],
        ["--home", "/home/pi/data"],
        ["--prefix", "/opt/with space"],
        ["--wheel", "/nowhere/x.whl"],
        ["--wheelhouse", "/nowhere"],
        ["--wheelhouse", "/etc"],
        ["--root", "/nowhere"],
        ["--join", "10.20.0.10"],
        ["--join", "head:6379 --verbose"],
        ["--join", "[fd00::1:6379"],
    ],
)
def test_options_that_make_no_sense_are_refused_with_exit_code_2(arguments: list[str]) -> None:
    done = install(*arguments, "--dry-run", "--any-arch")
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("install.sh: ")


def test_the_help_names_every_option_and_every_exit_code() -> None:
    text = INSTALLER.read_text("utf-8")
    parser = text[text.index("read_options() {") : text.index("check_options() {")]
    options = set(re.findall(r"--[a-z][a-z-]+", parser))
    codes = set(re.findall(r"\bEXIT_[A-Z]+=(\d)", text)) | {"0"}
    done = install("--help")
    assert done.returncode == 0
    assert set(re.findall(r"^  (--[a-z-]+) ", done.stdout, re.MULTILINE)) == options
    assert set(re.findall(r"^  (\d)  ", done.stdout, re.MULTILINE)) == codes


def test_a_32_bit_system_is_refused_also_under_a_64_bit_kernel(box: Path, tmp_path: Path) -> None:
    kernel = command(tmp_path / "kernel", "uname", "armv7l")
    userland = command(tmp_path / "userland", "uname", "aarch64")
    python = command(tmp_path / "python", "python3", "32 3.11 1") / "python3"
    for done in (
        install("--root", box, "--dry-run", tools=kernel),
        install("--root", box, "--dry-run", "--any-arch", tools=userland, python=python),
    ):
        assert done.returncode == 3
        assert "32-bit" in done.stderr
        assert "(64-bit)" in done.stderr, "it does not say what to do"


def test_another_processor_is_refused_unless_that_is_wanted(box: Path, tmp_path: Path) -> None:
    tools = command(tmp_path / "tools", "uname", "riscv64")
    refused = install("--root", box, "--dry-run", tools=tools)
    assert refused.returncode == 3
    assert "riscv64" in refused.stderr
    assert "--any-arch" in refused.stderr
    assert install("--root", box, "--dry-run", "--any-arch", tools=tools).returncode == 0


def test_a_board_with_the_right_processor_needs_no_option(box: Path, tmp_path: Path) -> None:
    tools = command(tmp_path / "tools", "uname", "aarch64")
    assert install("--root", box, "--dry-run", tools=tools).returncode == 0


def test_a_python_that_is_too_old_is_refused(box: Path, tmp_path: Path) -> None:
    python = command(tmp_path / "python", "python3", "64 3.9 0") / "python3"
    done = install("--root", box, "--dry-run", "--any-arch", python=python)
    assert done.returncode == 3
    assert "3.9" in done.stderr
    assert "bookworm" in done.stderr


@pytest.fixture
def public() -> Iterator[Path]:
    """The scripts in a folder that every user may read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shutil.copytree(ROOT / "configs", Path(folder) / "configs")
        yield Path(folder) / "configs" / "edge" / "install.sh"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run it as somebody else")
def test_only_a_dry_run_needs_no_root(public: Path) -> None:
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("there is no Python that every user can run")
    tried = install("--any-arch", "--dry-run", script=public, python=python, user="nobody")
    assert tried.returncode == 0, tried.stderr
    assert "would run: systemctl enable prime-spark-edge.service" in tried.stdout
    refused = install("--any-arch", script=public, python=python, user="nobody")
    assert refused.returncode == 4
    assert "sudo" in refused.stderr


def test_a_dry_run_says_everything_and_changes_nothing(box: Path) -> None:
    before = tree(box)
    done = install("--root", box, "--any-arch", "--dry-run", "--home", "/data/ps")
    assert done.returncode == 0, done.stderr
    assert tree(box) == before
    for file in (
        "/etc/sysusers.d/prime-spark.conf",
        "/etc/prime-spark/edge.yaml",
        "/etc/tmpfiles.d/prime-spark.conf",
        "/etc/systemd/system/prime-spark-edge.service",
        "/etc/systemd/system/prime-spark-edge.service.d/home.conf",
    ):
        assert f"would write: {box}{file} " in done.stdout
    assert re.search(r"^would run: .*-m pip install .*--only-binary=:all: ", done.stdout, re.M)
    assert "prime-spark\\[edge\\]" in done.stdout
    assert "systemctl" not in done.stdout, "that is for the running system, not for an image"
    assert re.search(r"^dry run: \d+ changes would be made, none was$", done.stdout, re.M)


def test_a_home_whose_socket_would_have_too_long_a_path_is_refused(box: Path) -> None:
    for length, code in ((32, 0), (33, 2)):
        home = "/data/".ljust(length, "x")
        done = install("--root", box, "--any-arch", "--dry-run", "--home", home)
        assert done.returncode == code, done.stderr
        assert (Home(Path(home)).edge_run.parent == Path(home)) == (code == 0)


def test_a_command_of_somebody_else_is_not_replaced(box: Path) -> None:
    theirs = box / "usr/local/bin"
    theirs.mkdir(parents=True)
    command(theirs, "prime-spark", "mine")
    done = install("--root", box, "--any-arch", "--dry-run")
    assert "note: /usr/local/bin/prime-spark is yours and stays" in done.stdout
    assert f"write: {theirs}/prime-spark" not in done.stdout


# --- a whole installation ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Installed:
    """A box after its first installation. said: by the installer."""

    root: Path
    wheelhouse: Path
    said: str

    @property
    def environment(self) -> Path:
        prefix = self.root / "opt" / "prime-spark"
        return prefix / (prefix / "current").readlink()

    def again(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return install("--root", self.root, "--any-arch", *arguments)


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel, built from a copy of the sources, and everything it needs on a box."""
    folder = tmp_path_factory.mktemp("wheels")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found = project["tool"]["setuptools"]["packages"]["find"]["include"]
    for name in ["pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(ROOT / name, folder)
    unwanted = shutil.ignore_patterns("__pycache__")
    for package in found:
        name = package.rstrip("*")
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    wheels = folder / "wheelhouse"
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "-w", str(wheels), "--only-binary=:all:"]
    subprocess.run([*pip, "-c", str(EDGE / "constraints.txt"), f"{folder}[edge]"], check=True)
    return wheels


@pytest.fixture(scope="module")
def first(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    root = new_box(tmp_path_factory.mktemp("installed") / "box")
    done = install(*("--root", root, "--any-arch", "--wheelhouse", wheelhouse, "--site", "north-1"))
    assert done.returncode == 0, done.stderr
    return Installed(root, wheelhouse, done.stdout)


@pytest.fixture
def installed(first: Installed, tmp_path: Path) -> Installed:
    """An installed box of one's own; packages, which nobody writes to, are links to the first's."""
    root, packages = tmp_path / "box", first.root / "opt" / "prime-spark"

    def link_or_copy(source: str, target: str) -> None:
        if Path(source).is_relative_to(packages) and not Path(source).is_symlink():
            os.link(source, target)
        else:
            shutil.copy2(source, target, follow_symlinks=False)

    shutil.copytree(first.root, root, symlinks=True, copy_function=link_or_copy)
    return Installed(root, first.wheelhouse, first.said)


@pytest.mark.timeout(300)
def test_without_a_network_a_wheelhouse_is_enough(installed: Installed) -> None:
    python = installed.environment / "bin" / "python"
    code = "import importlib.metadata as m; print(m.version('onnxruntime'), m.version('grpcio'))"
    done = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True)
    onnxruntime, grpcio = done.stdout.split()
    constraints = (EDGE / "constraints.txt").read_text("utf-8").splitlines()
    assert f"onnxruntime=={onnxruntime}" in constraints
    assert f"grpcio=={grpcio}" in constraints


@pytest.mark.timeout(300)
def test_everything_names_paths_of_the_box_and_none_of_where_it_was_built(
    installed: Installed, first: Installed
) -> None:
    program = installed.environment / "bin" / "prime-spark"
    home = f"/opt/prime-spark/{installed.environment.name}"
    assert program.read_text("utf-8").splitlines()[0] == f"#!{home}/bin/python"
    command = (installed.root / "usr/local/bin/prime-spark").read_text("utf-8")
    assert 'exec /opt/prime-spark/current/bin/prime-spark "$@"' in command
    for file in [*(installed.environment / "bin").iterdir(), *(installed.root / "etc").rglob("*")]:
        if file.is_file() and not file.is_symlink():
            assert str(first.root) not in file.read_text("utf-8"), file


@pytest.mark.timeout(300)
def test_the_service_is_enabled_and_runs_what_was_installed(installed: Installed) -> None:
    units = installed.root / "etc/systemd/system"
    unit = (units / "prime-spark-edge.service").read_text("utf-8")
    assert unit == (ROOT / "configs/systemd/prime-spark-edge.service").read_text("utf-8")
    program, *_ = re.findall(r"^ExecStart=(\S+)", unit, re.MULTILINE)
    assert program == "/opt/prime-spark/current/bin/prime-spark"
    assert (installed.environment / "bin" / "prime-spark").exists()
    enabled = units / "multi-user.target.wants/prime-spark-edge.service"
    assert str(enabled.readlink()) == "/etc/systemd/system/prime-spark-edge.service"


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd is not installed")
def test_the_user_of_the_service_cannot_log_in(installed: Installed) -> None:
    lines = (installed.root / "etc/passwd").read_text("utf-8").splitlines()
    (found,) = [line.split(":") for line in lines if line.startswith("prime-spark:")]
    assert 0 < int(found[2]) < 1000
    assert found[5:] == ["/var/lib/prime-spark", "/usr/sbin/nologin"]


@pytest.mark.timeout(300)
def test_a_second_run_changes_nothing_and_says_so(installed: Installed) -> None:
    before = tree(installed.root)
    done = installed.again("--wheelhouse", installed.wheelhouse, "--site", "north-1")
    assert done.returncode == 0, done.stderr
    assert "nothing changed: everything was in place" in done.stdout
    assert tree(installed.root) == before


@pytest.mark.timeout(300)
def test_settings_that_are_there_are_never_overwritten(installed: Installed) -> None:
    file = installed.root / "etc/prime-spark/edge.yaml"
    mine = "# mine\nhome: /data/ps\nedge:\n  site: mine\n"
    assert load_settings({"PRIME_SPARK_CONFIG": str(file)}).edge.site == "north-1"
    file.write_text(mine)
    done = installed.again("--wheelhouse", installed.wheelhouse, "--site", "south")
    assert done.returncode == 0, done.stderr
    assert file.read_text() == mine
    assert "says 'site: mine', not south" in done.stdout
    drop_in = installed.root / "etc/systemd/system/prime-spark-edge.service.d/home.conf"
    assert "ReadWritePaths=/data/ps\n" in drop_in.read_text("utf-8"), "the home of the settings"


def altered_wheel(wheelhouse: Path, folder: Path, module: str, code: str) -> Path:
    """Return a copy of our wheel in which a module has other code."""
    (original,) = wheelhouse.glob("prime_spark-*.whl")
    folder.mkdir()
    changed = folder / original.name
    with zipfile.ZipFile(original) as old, zipfile.ZipFile(changed, "w") as new:
        for item in old.infolist():
            if not item.filename.endswith("RECORD"):
                new.writestr(item, code if item.filename == module else old.read(item))
            else:  # without sums: pip would not read them either
                names = [f"{name},," for name in old.namelist()]
                new.writestr(item, "\n".join(names) + "\n")
    return changed


@pytest.mark.timeout(300)
def test_an_upgrade_keeps_the_environment_before_for_a_way_back(
    installed: Installed, tmp_path: Path
) -> None:
    before = installed.environment
    (before.parent / "env-ancient").mkdir()
    wheel = altered_wheel(installed.wheelhouse, tmp_path / "new", "configs/__init__.py", "NEW = 1")
    done = installed.again("--wheelhouse", installed.wheelhouse, "--wheel", wheel)
    assert done.returncode == 0, done.stderr
    assert installed.environment != before
    assert {each.name for each in before.parent.iterdir()} == {
        *("current", before.name, installed.environment.name)
    }
    subprocess.run(
        [installed.environment / "bin" / "python", "-I", "-c", "from configs import NEW"],
        check=True,
    )


@pytest.mark.timeout(300)
def test_a_version_that_does_not_run_here_is_not_switched_to(
    installed: Installed, tmp_path: Path
) -> None:
    before = installed.environment
    crash = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"
    wheel = altered_wheel(
        *(installed.wheelhouse, tmp_path / "bad", "edge_runtime/backends/onnx.py", crash)
    )
    done = installed.again("--wheelhouse", installed.wheelhouse, "--wheel", wheel)
    assert done.returncode == 1
    assert "does not run on this machine" in done.stderr
    assert installed.environment == before


@pytest.mark.timeout(300)
def test_what_a_power_cut_left_half_installed_is_made_again(installed: Installed) -> None:
    (installed.environment / ".complete").unlink()
    done = installed.again("--wheelhouse", installed.wheelhouse, "--dry-run")
    assert f"would run: rm -rf {installed.environment}\n" in done.stdout
    assert f" -m venv {installed.environment}\n" in done.stdout


# --- joining a cluster --------------------------------------------------------------------------

HEAD = "10.20.0.10:6379"


def joined(box: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the installer on a box that has every environment it asks for, Ray's too.

    That the packages exist is seen in test_aarch64; to install them here would take minutes.
    """
    ask = ("--root", box, "--any-arch", *arguments)
    for name in re.findall(r"-m venv (\S+)\n", install(*ask, "--dry-run").stdout):
        Path(name).mkdir(parents=True)
        (Path(name) / ".complete").touch()
    return install(*ask)


@pytest.mark.parametrize("head", [HEAD, "head.example.org:6379", "[fd00::10]:6379"])
def test_a_box_that_joins_gets_the_unit_and_is_told_what_is_missing(box: Path, head: str) -> None:
    done = joined(box, "--join", head)
    assert done.returncode == 0, done.stderr
    units = box / "etc/systemd/system"
    unit = (units / "prime-spark-node.service").read_text("utf-8")
    assert (
        f"ExecStart=/opt/prime-spark/current/bin/prime-spark node join --no-runtime --head {head}\n"
        in unit
    )
    enabled = units / "multi-user.target.wants/prime-spark-node.service"
    assert str(enabled.readlink()) == "/etc/systemd/system/prime-spark-node.service"
    assert f"cluster: {head}\n" in done.stdout
    assert "copy ray-token and jwks.json from" in done.stdout
    assert "ray: {address: " in done.stdout


def test_a_box_that_has_the_cluster_s_keys_is_not_told_to_copy_them(box: Path) -> None:
    identity = box / "var/lib/prime-spark/identity"
    identity.mkdir(parents=True)
    (identity / "jwks.json").touch()  # the runtime makes its own
    assert "copy ray-token and jwks.json from" in joined(box, "--join", HEAD).stdout
    (identity / "ray-token").touch()
    settings = box / "etc/prime-spark/edge.yaml"
    settings.write_text(settings.read_text("utf-8") + "ray:\n  address: 10.20.0.21\n")
    done = joined(box, "--join", HEAD)
    assert "copy" not in done.stdout
    assert "ray: {address: " not in done.stdout


def test_a_later_run_without_the_head_keeps_the_box_in_its_cluster(box: Path) -> None:
    joined(box, "--join", HEAD)
    before = tree(box)
    done = joined(box)
    assert "nothing changed: everything was in place" in done.stdout
    assert tree(box) == before
    unit = box / "etc/systemd/system/prime-spark-node.service"
    joined(box, "--join", "10.20.0.11:6379")
    assert unit.read_text("utf-8").count("--head 10.20.0.11:6379") == 1
    assert HEAD not in unit.read_text("utf-8")


@pytest.mark.parametrize(
    ("start", "code"),
    [
        ("node join --head=10.20.0.10:6379 --runtime", 0),
        ("node join", 2),
        ("node join --head nowhere", 2),
    ],
)
def test_a_unit_that_was_changed_by_hand_is_understood_or_asked_about(
    box: Path, start: str, code: int
) -> None:
    joined(box, "--join", HEAD)
    unit = box / "etc/systemd/system/prime-spark-node.service"
    unit.write_text(f"[Service]\nExecStart=/opt/prime-spark/current/bin/prime-spark {start}\n")
    done = install("--root", box, "--any-arch", "--dry-run")
    assert done.returncode == code, done.stderr
    told = done.stdout if code == 0 else done.stderr
    assert (f"cluster: {HEAD}\n" if code == 0 else "name it with --join HOST:PORT") in told


def test_ray_comes_only_to_boxes_that_join(box: Path) -> None:
    plain = install("--root", box, "--any-arch", "--dry-run").stdout
    assert re.search(r"would run: .* prime-spark\\\[edge\\\]$", plain, re.MULTILINE)
    assert "prime-spark-node" not in plain
    joining = install("--root", box, "--any-arch", "--dry-run", "--join", HEAD).stdout
    assert re.search(r"would run: .* prime-spark\\\[cluster\\\]$", joining, re.MULTILINE)
    assert f"-c {EDGE}/constraints-join.txt " in joining
    environments = re.findall(r"env-[0-9a-f]{12}", plain), re.findall(r"env-\w{12}", joining)
    assert environments[0][0] != environments[1][0]


# --- accelerators ------------------------------------------------------------------------------


def add_hailo(
    box: Path,
    *,
    bus: str = "",
    modules: tuple[str, ...] = (),
    node: str = "",
    binding: bool = False,
    packages: tuple[str, ...] = (),
) -> None:
    """Make a box look as if it had an accelerator, in the places where Linux shows one."""
    if bus:
        device = box / "sys/bus/pci/devices/0001:01:00.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x1e60\n")
        (device / "device").write_text(f"{bus}\n")
    (box / "proc").mkdir()
    lines = "".join(f"{name} 98304 0 - Live 0x0000000000000000 (O)\n" for name in modules)
    (box / "proc/modules").write_text(f"btrfs 1937408 0 - Live 0x0000000000000000\n{lines}")
    if node:
        (box / "dev").mkdir()
        (box / "dev" / node).touch()
    if binding:
        (box / "usr/lib/python3/dist-packages/hailo_platform").mkdir(parents=True)
    status = box / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    gone = "Package: {}\nStatus: deinstall ok config-files\n\n"
    there = "Package: {}\nStatus: install ok installed\nArchitecture: arm64\n\n"
    status.write_text(
        "".join(there.format(name) for name in ("libc6", *packages))
        + "".join(gone.format(name) for name in ("hailort", "h10-hailort") if name not in packages)
    )


def advice(box: Path) -> tuple[str, list[str]]:
    """Return what the installer says of an accelerator, and the commands that it advises."""
    done = install("--root", box, "--any-arch", "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("hailo: "))
    said = lines[start : start + 8]
    return "\n".join(said), re.findall(r"sudo (apt-get .*)$", "\n".join(said), re.MULTILINE)


def test_a_board_without_an_accelerator_is_told_that_models_run_on_the_cpu(box: Path) -> None:
    add_hailo(box)
    said, commands = advice(box)
    assert "no accelerator found; models run on the CPU" in said
    assert not commands


def test_a_hailo_8_that_has_everything_needs_nothing(box: Path) -> None:
    add_hailo(box, bus="0x2864", modules=("hailo_pci",), node="hailo0", binding=True)
    said, commands = advice(box)
    assert "Hailo-8 or 8L; driver hailo_pci; node /dev/hailo0; binding: found" in said
    assert "complete" in said
    assert not commands


def test_a_hailo_8_without_its_binding_is_told_the_package(tmp_path: Path) -> None:
    box = new_box(tmp_path / "box", "bookworm")
    add_hailo(box, bus="0x2864", modules=("hailo_pci",), node="hailo0")
    assert advice(box)[1] == ["apt-get install hailo-all"]


def test_a_hailo_8_without_a_driver_on_trixie_is_told_how_the_driver_is_built(box: Path) -> None:
    add_hailo(box, bus="0x2864")
    said, commands = advice(box)
    assert "driver not loaded" in said
    assert commands == ["apt-get install dkms hailo-all"]


def test_a_hailo_10h_without_its_binding_is_told_the_packages(box: Path) -> None:
    add_hailo(box, bus="0x45c4", modules=("hailo1x_pci",), node="h1x-0")
    said, commands = advice(box)
    assert "Hailo-10H; driver hailo1x_pci; node /dev/h1x-0; binding: missing" in said
    assert commands == ["apt-get install h10-hailort python3-h10-hailort"]


def test_the_loaded_module_tells_the_family_where_no_bus_is_visible(box: Path) -> None:
    add_hailo(box, modules=("hailo1x_pci",), node="hailo0")
    assert "Hailo-10H" in advice(box)[0]


def test_a_hailo_10h_on_bookworm_is_told_to_take_trixie(tmp_path: Path) -> None:
    box = new_box(tmp_path / "box", "bookworm")
    add_hailo(box, bus="0x45c4", modules=("hailo1x_pci",), node="h1x-0")
    said, commands = advice(box)
    assert "trixie" in said
    assert not commands


def test_packages_of_the_other_family_go_first(box: Path) -> None:
    add_hailo(box, bus="0x45c4", modules=("hailo_pci",), packages=("hailo-all", "python3-hailort"))
    said, commands = advice(box)
    assert "do not mix" in said
    assert commands == [
        "apt-get remove python3-hailort hailo-all",
        "apt-get install dkms h10-hailort-pcie-driver h10-hailort python3-h10-hailort",
    ]


# --- what comes with it ------------------------------------------------------------------------


def test_the_example_has_settings_that_the_runtime_knows() -> None:
    found = load_settings({"PRIME_SPARK_CONFIG": str(EDGE / "edge.yaml")})
    assert found.home == "/var/lib/prime-spark"
    assert (found.edge.ports.rest, found.edge.ports.grpc) == (8100, 9100)
    assert found.edge.address == "127.0.0.1", "a new box is not open to the network"
    assert str(found.edge.models.folder) == "/var/lib/prime-spark/models"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_the_installer() -> None:
    done = subprocess.run(["shellcheck", str(INSTALLER)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
