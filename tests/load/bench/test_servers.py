from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from load.bench.servers import DidNotStart, Launch, Server

# Starts a daemon: a process in a session of its own, whose parent ends at once.
DAEMON = """
import subprocess, sys, time
inner = '''
import subprocess, sys
quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
print(subprocess.Popen(sleeper, **quiet).pid)
'''
pid = subprocess.run([sys.executable, "-c", inner], capture_output=True, text=True).stdout
open(sys.argv[1], "w").write(pid)
{then}
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def launch(tmp_path: Path, then: str) -> tuple[Server, psutil.Process]:
    note = tmp_path / "pid"
    command = (sys.executable, "-c", DAEMON.format(then=then), str(note))
    server = Server(Launch("daemon", command, {}), tmp_path / "log")
    server.wait_until(lambda: note.exists() and note.read_text().strip() != "")
    return server, psutil.Process(int(note.read_text()))


@pytest.mark.parametrize("then", ["time.sleep(600)", ""])
def test_a_server_ends_with_its_daemons_whether_or_not_its_first_process_lives(
    tmp_path: Path, then: str
) -> None:
    server, daemon = launch(tmp_path, then)
    assert server.usage().processes >= 1
    server.stop()
    assert not daemon.is_running()


def test_a_paused_server_is_stopped_and_goes_on_when_resumed(tmp_path: Path) -> None:
    server, daemon = launch(tmp_path, "time.sleep(600)")
    try:
        server.pause()
        wait_for(lambda: daemon.status() == psutil.STATUS_STOPPED, "it was not stopped")
        server.resume()
        wait_for(lambda: daemon.status() != psutil.STATUS_STOPPED, "it was not resumed")
    finally:
        server.stop()


def test_memory_of_the_whole_tree_is_counted(tmp_path: Path) -> None:
    server, daemon = launch(tmp_path, "time.sleep(600)")
    try:
        assert server.usage().pss_bytes >= daemon.memory_full_info().pss > 0
    finally:
        server.stop()


def test_a_server_that_ends_at_once_did_not_start_and_the_error_names_its_log(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    server = Server(Launch("broken", (sys.executable, "-c", "raise SystemExit(3)"), {}), log)
    with pytest.raises(DidNotStart, match=str(log)):
        server.wait_until(lambda: False)
    server.stop()


def test_a_server_does_not_outlive_the_benchmark(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    served_code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); "
    served_code += "time.sleep(600)"
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from load.bench.servers import Launch, Server\n"
        "command = (sys.executable, '-c', sys.argv[1], sys.argv[2])\n"
        "Server(Launch('served', command, {}), Path(sys.argv[3]))\n"
        "time.sleep(600)\n"
    )
    arguments = [served_code, str(note), str(tmp_path / "log")]
    benchmark = subprocess.Popen([sys.executable, "-c", script, *arguments])
    try:
        wait_for(lambda: note.exists() and note.read_text() != "", "it did not start")
        served = psutil.Process(int(note.read_text()))
    finally:
        benchmark.kill()
        benchmark.wait()
    wait_for(lambda: not served.is_running(), "the server is still there")
