"""Everything a fault can reach, and the book in which the run is written down."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from load.chaos.background import Background
from load.chaos.box import Box, BoxError
from load.chaos.clock import Clock
from load.chaos.head import Head, Probe
from load.chaos.ledger import Ledger, Window
from load.chaos.network import Namespace
from load.chaos.rungs import STEADY_S
from load.chaos.watch import Watch
from load.fake_hailo.device import FakeDevice

GUEST: Final = "guest"
VERSIONS: Final = ("1", "2")
BACK_S: Final = 10.0
REJOIN_S: Final = 30.0
PATIENCE_S: Final = 75.0  # for what is late already: the policy's longest quiet is 60 s
_LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done or seen. took_s: what was measured of it; holds: False breaks a
    mark.
    """

    at_s: float
    what: str
    layer: str = ""
    kind: str = ""
    detail: str = ""
    took_s: float | None = None
    holds: bool = True


@dataclass(slots=True)
class Scene:
    """guests: which versions of the guest were loaded (True) or unloaded by name.

    strikes: when something was done that may change a rung; kills: when a host was killed.
    accelerator_free, node_free: held while a fault of that layer is under way, both while the box
    is restarted.
    """

    root: Path
    models: Path
    device: FakeDevice
    box: Box
    watch: Watch
    clock: Clock | None
    network: Namespace | None
    head: Head | None = None
    probe: Probe | None = None
    background: Background | None = None
    ledger: Ledger = field(default_factory=Ledger)
    events: list[Event] = field(default_factory=list)
    strikes: list[float] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    guests: dict[str, bool] = field(default_factory=dict)
    began_s: float = field(default_factory=time.monotonic)
    accelerator_free: asyncio.Lock = field(default_factory=asyncio.Lock)
    node_free: asyncio.Lock = field(default_factory=asyncio.Lock)
    tell: Callable[[str], None] = print

    def note(
        self,
        what: str,
        layer: str = "",
        kind: str = "",
        detail: str = "",
        took_s: float | None = None,
        *,
        holds: bool = True,
        at_s: float | None = None,
    ) -> Event:
        """Write something down, and say it. at_s: when it was, now if unset."""
        event = Event(
            time.monotonic() if at_s is None else at_s, what, layer, kind, detail, took_s, holds
        )
        self.events.append(event)
        took = "" if took_s is None else f" {took_s:.2f} s"
        mark = "" if holds else "  <-- does not hold"
        text = f"{event.at_s - self.began_s:7.1f} s  {layer:11} {kind:13} {what}{took}"
        self.tell(f"{text}  {detail}{mark}".rstrip())
        return event

    def found(self, what: str) -> list[Event]:
        """Return the events of a name."""
        return [event for event in self.events if event.what == what]

    @contextmanager
    def struck(self) -> Iterator[None]:
        """Note both ends of something that may change the rung: neither is a flap."""
        self.strikes.append(time.monotonic())
        try:
            yield
        finally:
            self.strikes.append(time.monotonic())

    @contextmanager
    def excluded(self, why: str, model: str = "", stream: str = "") -> Iterator[None]:
        """Let a model, or a client, fail meanwhile."""
        window = Window(why, time.monotonic(), model, stream)
        self.ledger.excluded.append(window)
        try:
            yield
        finally:
            window.until_s = time.monotonic()

    @contextmanager
    def off(self, why: str) -> Iterator[Window]:
        """Let everything fail meanwhile: the box is off. The caller ends it by `until_s`."""
        window = Window(why, time.monotonic())
        self.ledger.off.append(window)
        try:
            yield window
        finally:
            window.until_s = min(window.until_s, time.monotonic())

    async def back_on_top(self, since_s: float, patience_s: float = PATIENCE_S) -> float | None:
        """Wait until the top rung has computed for a while; return since when, from then on.

        None when that takes longer than the patience.
        """
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            top_since = self.watch.history.top_since()
            now = self.watch.history.seen_s
            if top_since is not None and now - max(top_since, since_s) >= STEADY_S:
                return max(0.0, top_since - since_s)
            await asyncio.sleep(_LOOK_S)
        return None

    async def ask(self, method: str, route: str, document: object = None) -> tuple[int, Any]:
        """Ask the box on its own socket; return status and document. Raises OSError."""
        body = b"" if document is None else json.dumps(document).encode()
        status, answer = await self.box.local(method, route, body)
        try:
            return status, json.loads(answer) if answer else None
        except ValueError:
            return status, None

    async def load_guest(self, version: str, is_loaded: bool) -> int:
        """Load or unload a version of the guest by name; return the status."""
        action = "load" if is_loaded else "unload"
        status, _ = await self.ask(
            "POST",
            f"/v2/repository/models/{GUEST}/{action}",
            {"parameters": {"version": version}},
        )
        if status == 200:
            self.guests[version] = is_loaded
        return status

    async def loaded(self) -> set[tuple[str, str]]:
        """Return which versions are loaded."""
        _, entries = await self.ask("POST", "/v2/repository/index", {})
        return {(e["name"], e["version"]) for e in entries or () if e["state"] == "READY"}

    async def compare_guests(self) -> str:
        """Return how what is loaded differs from what was decided by name; empty if it does not."""
        loaded = await self.loaded()
        wrong = [
            f"{GUEST}:{version} {'is not' if wanted else 'is'} loaded"
            for version, wanted in sorted(self.guests.items())
            if ((GUEST, version) in loaded) is not wanted
        ]
        return "; ".join(wrong)

    async def rejoined(self, healed_s: float, starts_before: int) -> float | None:
        """Wait until a new raylet has joined and the edge answers through the gateway again.

        Return how long after healing that was. starts_before: of raylets, when the fault struck;
        -1 when the raylet need not be a new one.
        """
        if self.probe is None:
            raise BoxError("there is no cluster")
        until = time.monotonic() + 2 * PATIENCE_S
        joined_s: float | None = None
        while time.monotonic() < until:
            node = self.box.node()
            starts = node.raylet_starts if node is not None and node.raylet == "joined" else -1
            if joined_s is None and starts > starts_before:
                joined_s = time.monotonic()
            if joined_s is not None:
                answered_s = self.probe.answered_after(max(healed_s, joined_s))
                if answered_s is not None:
                    return answered_s - healed_s
            await asyncio.sleep(0.1)
        return None
