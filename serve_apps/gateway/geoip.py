"""Where callers are, by their address: a database in the MaxMind DB format, if one is set.

It gives a region, never a latency: positions of addresses are off by tens to hundreds of
kilometres, and some are the middle of a country. Format: MaxMind DB file format specification,
version 2.0 (the position is `location.latitude` and `location.longitude`, as in GeoLite2 City and
DB-IP City Lite). The reader is imported only where a database is set.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_runtime.errors import Corrupt, InvalidInput, NotFound
from policies.geography import Position, position

if TYPE_CHECKING:
    from maxminddb import Reader

logger = logging.getLogger(__name__)

REMEMBERED: Final = 4096  # addresses
LOOK_EVERY_S: Final = 60.0  # whether the file was replaced; makers do so weekly


class GeoIp:
    """An open database. Raises InvalidInput, NotFound and Corrupt when it cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader, self._stamp = self._open()
        self._found: dict[str, Position | None] = {}

    def position(self, address: str) -> Position | None:
        """Return where an address is said to be; None when that is not known."""
        if address not in self._found:
            if len(self._found) >= REMEMBERED:
                del self._found[next(iter(self._found))]
            self._found[address] = self._look_up(address)
        return self._found[address]

    async def run(self) -> None:
        """Take in a replaced file, for ever; one that cannot be read leaves the old in use."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Look once whether the file was replaced, and open the new one."""
        try:
            reopened = await asyncio.to_thread(self._reopened)
        except (InvalidInput, NotFound, Corrupt) as error:
            logger.warning("the GeoIP database stays as it was: %s", error)
            return
        if reopened is not None:
            self._reader, self._stamp = reopened
            self._found.clear()
            logger.info("the GeoIP database was replaced")

    def _reopened(self) -> tuple[Reader, tuple[int, int]] | None:
        return None if _stamp(self._path) == self._stamp else self._open()

    def _open(self) -> tuple[Reader, tuple[int, int]]:
        try:
            import maxminddb
        except ImportError:
            raise InvalidInput(
                "geoip.database is set, but its reader is not installed",
                field="geoip.database",
                hint="pip install 'prime-spark[geo]'",
            ) from None
        stamp = _stamp(self._path)
        try:
            # In memory: a mapped file that somebody writes over in place would end the process.
            return maxminddb.open_database(self._path, maxminddb.MODE_MEMORY), stamp
        except (maxminddb.InvalidDatabaseError, ValueError, OSError) as error:
            raise Corrupt(
                f"{self._path} is no MaxMind DB file: {error}", field="geoip.database"
            ) from None

    def _look_up(self, address: str) -> Position | None:
        try:
            found: Any = self._reader.get(ipaddress.ip_address(address))
            where = found["location"]
            return position(where["latitude"], where["longitude"])
        except (ValueError, KeyError, TypeError):
            return None  # no address, not in there, or without a position


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise NotFound(
            f"the GeoIP database {path} cannot be read: {error.strerror}", field="geoip.database"
        ) from None
    return found.st_mtime_ns, found.st_ino
