"""Which kind of file it is, by its first line."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge_runtime.errors import InvalidInput, NotFound
from load.simulator.readers.request_log import read_request_logs
from load.simulator.readers.tables import is_azure, is_table, read_azure_table, read_table
from load.simulator.recording import Recording

KINDS: Final = (
    "a trace is a request log (JSON lines), a CSV with the columns time and size (and slack, in "
    "seconds), or a CSV with TIMESTAMP, ContextTokens and GeneratedTokens"
)
_LOCUST_SUMS: Final = ("Timestamp,User Count", "Type,Name,Request Count")


def read(path: Path) -> Recording:
    """Read a file of recorded requests. Raises NotFound, or InvalidInput saying what it must be."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            first = file.readline(65536).strip()
    except FileNotFoundError:
        raise NotFound(
            f"there is no trace '{path}'",
            field="trace",
            hint="name a file, or last-24h (last-2h, last-7d) for what this home recorded",
        ) from None
    except OSError as error:
        raise InvalidInput(f"'{path}' cannot be read: {error.strerror}", field="trace") from None
    if first.startswith("{"):
        return read_request_logs(path.stem, [path])
    columns = [column.strip() for column in first.split(",")]
    if is_azure(columns):
        return read_azure_table(path)
    if is_table(columns):
        return read_table(path)
    if first.startswith(_LOCUST_SUMS):
        raise InvalidInput(
            f"'{path}' holds Locust's sums, not its requests",
            field="trace",
            hint="run Locust with PRIME_SPARK_LOAD_REQUESTS=FILE, and name that file",
        )
    raise InvalidInput(f"'{path}' is no trace that can be read", field="trace", hint=KINDS)
