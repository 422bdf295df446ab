"""Reads recorded traffic, whatever recorded it.

`read` takes a file: a gateway's request log (JSON lines), a table of requests (CSV with time, size
and slack; what `load/locustfile.py` writes is one), or a public trace of the Azure LLM inference
family. `read_home` takes the request logs of a home, for the last hours or days.
"""

from load.simulator.readers.files import read
from load.simulator.readers.home import read_home, window_s
from load.simulator.readers.tables import COLUMNS, row, write_table

__all__ = ["COLUMNS", "read", "read_home", "row", "window_s", "write_table"]
