"""The systemd unit of the edge runtime: what it promises, what systemd thinks of it, and how a
process fares under it.

The last runs a real systemd: as process 1 of new namespaces, in a control group of its own, with no
unit but this one, so that nothing of this machine is started or stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.config import EdgeSettings
from tests.edge_runtime.onnx_models import identity

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "configs" / "systemd" / "prime-spark-edge.service"
NAME = UNIT.name
NODE_UNIT = UNIT.with_name("prime-spark-node.service")


def settings() -> dict[str, list[str]]:
    """Return the values of each key; keys are distinct over the sections."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text("utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def value(key: str) -> str:
    (found,) = settings()[key]
    return found


def test_the_service_never_gives_up() -> None:
    assert value("Restart") == "always"
    assert value("StartLimitIntervalSec") == "0"
    assert float(value("RestartSec")) <= 5


def test_the_service_starts_without_a_network() -> None:
    assert "network" not in "".join(
        line for line in UNIT.read_text("utf-8").splitlines() if not line.startswith("#")
    )


def test_a_stop_lasts_longer_than_the_runtime_needs_to_finish_its_work() -> None:
    assert value("KillMode") == "mixed"
    assert float(value("TimeoutStopSec")) > EdgeSettings().drain_s


def test_only_the_accelerators_are_reachable_among_devices() -> None:
    assert value("DevicePolicy") == "closed"
    nodes = {"/dev/hailo0 rw", "/dev/h1x-0 rw"}
    drivers = {"char-hailo rw", "char-hailo1x rw"}
    assert set(settings()["DeviceAllow"]) == nodes | drivers
    assert "PrivateDevices" not in settings(), "it hides the accelerator"


# --- what systemd's own tools say --------------------------------------------------------------


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    command = [tool, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def with_a_program(folder: Path, text: str, name: str = NAME) -> Path:
    """Write the unit with a program that exists here."""
    unit = folder / name
    unit.write_text(text.replace("/opt/prime-spark/current/bin/prime-spark", "/bin/true"))
    return unit


def test_systemd_finds_nothing_wrong_in_the_unit(tmp_path: Path) -> None:
    done = analyze("verify", with_a_program(tmp_path, UNIT.read_text("utf-8")))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_finds_nothing_wrong_in_the_unit_of_a_node(tmp_path: Path) -> None:
    runtime = with_a_program(tmp_path, UNIT.read_text("utf-8"))
    text = NODE_UNIT.read_text("utf-8")
    node = with_a_program(tmp_path, text, NODE_UNIT.name)
    done = analyze("verify", node, runtime)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_node_is_a_guest_of_the_runtime() -> None:
    lines = NODE_UNIT.read_text("utf-8").splitlines()
    assert f"Wants={NAME}" in lines
    assert f"After={NAME}" in lines
    (command,) = (line for line in lines if line.startswith("ExecStart="))
    assert command.endswith(" node join --no-runtime"), "else both would start the runtime"
    ties = ("Requires", "BindsTo", "PartOf", "PropagatesStopTo", "Conflicts")
    assert not [line for line in lines if line.startswith(ties)]


def test_systemd_would_notice_a_key_that_does_not_exist(tmp_path: Path) -> None:
    wrong = UNIT.read_text("utf-8").replace("WatchdogSec=", "WatchDogSec=")
    assert "WatchDogSec" in analyze("verify", with_a_program(tmp_path, wrong)).stderr


def test_the_service_is_exposed_no_more_than_it_was(tmp_path: Path) -> None:
    unit = with_a_program(tmp_path, UNIT.read_text("utf-8"))
    done = analyze("security", "--offline=true", "--no-pager", "--threshold=20", unit)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a file")
    assert done.returncode == 0, done.stdout[-200:]


# --- under a real systemd ----------------------------------------------------------------------

# In the place of the program. The first start reports what it may do here, says that it is ready
# when told to, and hangs; every later one lives until it is stopped.
PROGRAM = """\
import json, mmap, os, signal, socket, subprocess, sys, time
from multiprocessing import shared_memory
from pathlib import Path

home = Path("/var/lib/prime-spark")
start = len(list(home.glob("start-*"))) + 1


def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.connect(os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1))
        to.send(text.encode())


def outcome(action):
    try:
        return action() or "done"
    except OSError as error:
        return type(error).__name__ + " " + str(error.errno)
    except Exception as error:
        return repr(error)


def write(path):
    return outcome(lambda: Path(path).write_text("") and None)


def share():
    memory = shared_memory.SharedMemory(create=True, size=1 << 20)
    memory.close()
    memory.unlink()


def compute():
    import numpy as np
    from edge_runtime.backends.base import BackendOptions
    from edge_runtime.backends.onnx import load_onnx
    run = load_onnx(home / "model.onnx", BackendOptions()).prepare(
        {"x": np.ones((1, 3), np.float32)}, ["y"])
    return run.execute()[0].tolist()


def serve():
    import grpc
    from concurrent.futures import ThreadPoolExecutor
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(10)
    server.stop(None)


def stop(*_):
    notify("STOPPING=1")
    (home / "stopped").touch()
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
if start == 1:
    child = [sys.executable, "-c", "print('child', end='')"]
    report = {
        "arguments": sys.argv[1:],
        "user": os.getuid(),
        "watchdog_us": os.environ.get("WATCHDOG_USEC"),
        "write": {place: write(place + "/probe") for place in (
            "/var/lib/prime-spark", "/run/prime-spark", "/tmp", "/dev/shm", "/etc", "/opt")},
        "see": {place: outcome(lambda: os.listdir(place) and None) for place in ("/root", "/home")},
        "other device": outcome(lambda: open("/run/other", "rb").close()),
        "nice": outcome(lambda: os.setpriority(os.PRIO_PROCESS, 0, 5)),
        "child": outcome(lambda: subprocess.check_output(child, text=True)),
        "shared memory": outcome(share),
        "compute": outcome(compute),
        "grpc": outcome(serve),
    }
    (home / "report.json").write_text(json.dumps(report))
(home / f"start-{start}").touch()
while start == 1 and not (home / "go").exists():
    time.sleep(0.05)
notify("READY=1")
while True:
    if start > 1:
        notify("WATCHDOG=1")
    time.sleep(0.2)
"""

# Runs beside it as root, and asks systemd.
OBSERVER = """\
import json, subprocess, time
from pathlib import Path

home, seen = Path("/var/lib/prime-spark"), []


def state():
    shown = subprocess.run(
        ["systemctl", "show", "-pActiveState", "-pNRestarts", "prime-spark-edge.service"],
        capture_output=True, text=True).stdout
    return dict(line.split("=") for line in shown.splitlines())


def until(name, found):
    while not found():
        time.sleep(0.05)
    (home / name).write_text(json.dumps(state()))


until("1-before-ready", lambda: (home / "start-1").exists())
(home / "go").touch()
until("2-after-ready", lambda: state()["ActiveState"] == "active")
until("3-after-hanging", lambda: state() == {"ActiveState": "active", "NRestarts": "1"})
subprocess.run(["systemctl", "stop", "prime-spark-edge.service"])
until("4-stopped", lambda: True)
"""

BOOT = """\
set -e
mount --make-rprivate /
for place in /run /var/lib /opt /mnt; do mount -t tmpfs tmpfs $place; done
mkdir -p /var/lib/prime-spark /opt/python /opt/site /opt/source
mkdir -p /opt/prime-spark/current/bin /run/units
mount --bind "$WORK/home" /var/lib/prime-spark
mount --bind "$WORK/passwd" /etc/passwd
mount --bind "$WORK/group" /etc/group
mount --bind "$BASE" /opt/python
mount --bind "$SITE" /opt/site
mount --bind "$SOURCE" /opt/source
cp "$WORK"/program /opt/prime-spark/current/bin/prime-spark
cp "$WORK"/observer /opt/observer
cp -r "$WORK"/units/. /run/units
mknod -m 666 /run/other c 10 229
mount -t cgroup2 none /sys/fs/cgroup
export SYSTEMD_UNIT_PATH=/run/units container=other
exec "$SYSTEMD" --system --unit=default.target --log-target=null --show-status=no
"""


def cgroup_root() -> Path | None:
    """Return where this machine has its version 2 control groups."""
    for place in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (place / "cgroup.controllers").exists():
            return place
    return None


@contextlib.contextmanager
def own_cgroup() -> Iterator[Path]:
    """A control group for a systemd; what is in it at the end is killed."""
    root = cgroup_root()
    if root is None:
        pytest.skip("there are no control groups of version 2 here")
    group = root / f"prime-spark-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"control groups cannot be made here: {error}")
    try:
        yield group
    finally:
        with contextlib.suppress(OSError):
            (group / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + 10
        while group.exists() and time.monotonic() < deadline:
            for inner in sorted(group.rglob("*/"), reverse=True):
                with contextlib.suppress(OSError):
                    inner.rmdir()
            with contextlib.suppress(OSError):
                group.rmdir()
            time.sleep(0.05)


@pytest.mark.timeout(100)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a systemd")
def test_a_process_fares_under_systemd_as_the_unit_says(tmp_path: Path) -> None:
    systemd = Path("/lib/systemd/systemd")
    if not systemd.exists() or shutil.which("unshare") is None:
        pytest.skip("systemd or unshare is not installed")
    namespaces = ["--pid", "--fork", "--mount", "--uts", "--ipc", "--cgroup", "--mount-proc"]
    if subprocess.run(["unshare", *namespaces, "true"], capture_output=True).returncode != 0:
        pytest.skip("namespaces cannot be made here")
    home = write_machine(tmp_path)
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "WORK": str(tmp_path),
        "BASE": sys.base_prefix,
        "SITE": sysconfig.get_path("purelib"),
        "SOURCE": str(ROOT),
        "SYSTEMD": str(systemd),
    }
    with own_cgroup() as group, (tmp_path / "log").open("w") as log:
        boot = f"echo $$ > {group}/cgroup.procs; exec unshare {' '.join(namespaces)} "
        machine = subprocess.Popen(
            ["bash", "-c", f"{boot} --kill-child bash -c '{BOOT}'"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 60
            while not (home / "4-stopped").exists() and machine.poll() is None:
                reached = sorted(path.name for path in home.iterdir())
                assert time.monotonic() < deadline, f"it came no further than {reached}"
                time.sleep(0.05)
        finally:
            os.killpg(machine.pid, signal.SIGKILL)
            machine.wait(10)
    assert (home / "4-stopped").exists(), (tmp_path / "log").read_text()

    report = json.loads((home / "report.json").read_text())
    assert report["arguments"] == ["edge", "run", "--config", "/etc/prime-spark/edge.yaml"]
    assert report["user"] == 977
    assert report["watchdog_us"] == "2000000"
    writable = {place for place, said in report["write"].items() if said == "done"}
    assert writable == {"/var/lib/prime-spark", "/run/prime-spark", "/tmp", "/dev/shm"}
    assert report["see"] == {"/root": "PermissionError 13", "/home": "PermissionError 13"}
    assert report["other device"] == "PermissionError 1"
    works = ("nice", "child", "shared memory", "compute", "grpc")
    assert [report[name] for name in works] == ["done", "child", "done", [[1.0] * 3], "done"]

    def seen(name: str) -> Any:
        return json.loads((home / name).read_text())

    assert seen("1-before-ready") == {"ActiveState": "activating", "NRestarts": "0"}
    assert seen("2-after-ready") == {"ActiveState": "active", "NRestarts": "0"}
    assert seen("3-after-hanging") == {"ActiveState": "active", "NRestarts": "1"}
    assert seen("4-stopped")["ActiveState"] == "inactive"
    assert (home / "stopped").exists(), "it was killed rather than asked"


def write_machine(work: Path) -> Path:
    """Write what the machine of the test begins with; return the service's home."""
    home = work / "home"
    home.mkdir()
    identity(home / "model.onnx", "FP32")
    units = work / "units"
    (units / f"{NAME}.d").mkdir(parents=True)
    shutil.copy(UNIT, units)
    # Only what the test's own Python needs, and a shorter wait for the watchdog.
    (units / f"{NAME}.d" / "test.conf").write_text(
        "[Service]\nWatchdogSec=2\nEnvironment=LD_LIBRARY_PATH=/opt/python/lib "
        "PYTHONPATH=/opt/source:/opt/site\n"
    )
    (units / "observer.service").write_text(
        "[Unit]\nDefaultDependencies=no\n[Service]\nEnvironment=LD_LIBRARY_PATH=/opt/python/lib\n"
        "ExecStart=/opt/python/bin/python3 /opt/observer\n"
    )
    (units / "default.target").write_text(
        f"[Unit]\nDefaultDependencies=no\nWants={NAME} observer.service\n"
    )
    for name in ("sysinit", "basic", "shutdown", "local-fs", "umount", "slices", "exit"):
        (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    (work / "program").write_text(f"#!/opt/python/bin/python3\n{PROGRAM}")
    (work / "program").chmod(0o755)
    (work / "observer").write_text(OBSERVER)
    for file, line in (
        ("passwd", "prime-spark:x:977:977::/var/lib/prime-spark:/usr/sbin/nologin"),
        ("group", "prime-spark:x:977:"),
    ):
        (work / file).write_text(f"{Path('/etc', file).read_text()}{line}\n")
    return home
