from __future__ import annotations

import subprocess
import sys

from edge_runtime.engine.memory import unchanged_code

SMAPS = """\
55d0c0000000-55d0c0010000 r-xp 00000000 fe:00 1234        /usr/bin/python3.11
Size:                 64 kB
Anonymous:             0 kB
Swap:                  0 kB
55d0c0010000-55d0c0020000 r-xp 00010000 fe:00 1234        /usr/bin/python3.11
Anonymous:             0 kB
Swap:                  4 kB
7f0000000000-7f0000020000 r--p 00001000 fe:00 99          /usr/lib/a b.so (deleted)
Rss:                   8 kB
Anonymous:             0 kB
7f0000020000-7f0000028000 r-xp 00021000 fe:00 99          /usr/lib/a b.so (deleted)
Anonymous:             0 kB
7f0000028000-7f0000030000 r--p 00029000 fe:00 99          /usr/lib/a b.so (deleted)
Anonymous:             8 kB
7f0000030000-7f0000040000 rw-p 00031000 fe:00 99          /usr/lib/a b.so (deleted)
Anonymous:             0 kB
7f0000040000-7f0000050000 r-xp 00000000 00:00 0
Anonymous:             0 kB
7f0000050000-7f0000060000 r--p 00000000 fe:00 7           /var/lib/models/weights.bin
Anonymous:             0 kB
7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0           [vdso]
Anonymous:             0 kB
"""


def test_data_and_what_was_written_to_stay() -> None:
    found = unchanged_code(SMAPS.splitlines(keepends=True))
    assert found == [(0x55D0C0000000, 0x10000), (0x7F0000020000, 0x8000)]


def test_code_leaves_memory_and_comes_back_when_it_is_used() -> None:
    program = """
import numpy as np
from edge_runtime.backends.ort import onnxruntime
from edge_runtime.engine.memory import unmap_code

def resident_pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

before = resident_pages()
unmap_code()
print((before - resident_pages()) * 4096)
import decimal, sqlite3, ssl
print(int(np.arange(4) @ np.arange(4)), onnxruntime.get_available_providers()[-1])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    saved, said = done.stdout.splitlines()
    assert int(saved) > 5e6
    assert said == "14 CPUExecutionProvider"
