"""A network namespace for the box, with a link to this one that can be cut. Needs root."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FOLDER: Final = Path("/run/netns")
_NOTHING_PASSES: Final = ("root", "pfifo", "limit", "0")  # every kernel has it, unlike netem


@dataclass(frozen=True, slots=True)
class Namespace:
    """The box at `inside`, everybody else at `outside`. name: at most 13 characters."""

    name: str
    subnet: str

    @classmethod
    def of_this_process(cls) -> Namespace:
        """Return one that no other run on this machine has."""
        pid = os.getpid()
        return cls(f"psc{pid}", f"10.77.{pid % 256}")

    @property
    def outside(self) -> str:
        return f"{self.subnet}.1"

    @property
    def inside(self) -> str:
        return f"{self.subnet}.2"

    @property
    def prefix(self) -> list[str]:
        """What a command begins with that is to run inside; file systems stay shared."""
        return ["nsenter", f"--net={_FOLDER / self.name}"]

    @property
    def is_there(self) -> bool:
        return (_FOLDER / self.name).exists()

    def make(self) -> None:
        """Raises CalledProcessError."""
        outer, inner = f"{self.name}a", f"{self.name}b"
        _ip("netns", "add", self.name)
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        _ip("link", "set", inner, "netns", self.name)
        _ip("addr", "add", f"{self.outside}/24", "dev", outer)
        _ip("link", "set", outer, "up")
        _ip("-n", self.name, "addr", "add", f"{self.inside}/24", "dev", inner)
        _ip("-n", self.name, "link", "set", inner, "up")
        _ip("-n", self.name, "link", "set", "lo", "up")

    def cut(self) -> None:
        """As if the cable were pulled: addresses stay, nothing arrives."""
        _ip("link", "set", f"{self.name}a", "down")

    def mend(self) -> None:
        _ip("link", "set", f"{self.name}a", "up")

    def lose(self) -> None:
        """Lose everything on the way, as behind a router: nobody is refused, and nobody is told."""
        outer, inner = f"{self.name}a", f"{self.name}b"
        # Who cannot be asked for a hardware address any more would be told of as unreachable.
        _ip("neigh", "replace", self.inside, "lladdr", _address(inner, self.name), "dev", outer,
            "nud", "permanent")  # fmt: skip
        _ip("-n", self.name, "neigh", "replace", self.outside, "lladdr", _address(outer), "dev",
            inner, "nud", "permanent")  # fmt: skip
        _tc("qdisc", "replace", "dev", outer, *_NOTHING_PASSES)
        _tc("-n", self.name, "qdisc", "replace", "dev", inner, *_NOTHING_PASSES)

    def deliver(self) -> None:
        """End what `lose` began."""
        _tc("qdisc", "del", "dev", f"{self.name}a", "root")
        _tc("-n", self.name, "qdisc", "del", "dev", f"{self.name}b", "root")

    def remove(self) -> None:
        """Also what `make` did not finish."""
        for words in (("link", "del", f"{self.name}a"), ("netns", "del", self.name)):
            subprocess.run(["ip", *words], stderr=subprocess.DEVNULL, check=False)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def _tc(*words: str) -> None:
    subprocess.run(["tc", *words], check=True, capture_output=True)


def _address(device: str, namespace: str = "") -> str:
    """Return the hardware address of a device."""
    where = ("-n", namespace) if namespace else ()
    address: str = json.loads(_ip(*where, "-json", "link", "show", "dev", device))[0]["address"]
    return address
