"""Which version of a model a request gets when it names none: canaries and shadows.

A canary gets a share of the requests, a shadow a copy of a share of them, whose answers nobody
gets. Who gets what follows from a hash of a key of the request, so that the same key always meets
the same version. Versions are drawn by weighted rendezvous hashing (Thaler and Ravishankar, 1998;
with weights, Schindelhauer and Schomaker, 2005): whoever has a canary keeps it while its share
grows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

CANARY: Final = "canary_percent"
SHADOW: Final = "shadow_percent"
OPTIONS: Final = (CANARY, SHADOW)  # of a served version; the engine knows nothing of them


class Shares(NamedTuple):
    """From 0 to 1: of the requests that a version gets, and that it gets copies of."""

    canary: float = 0.0
    shadow: float = 0.0


def shares_of(options: Mapping[str, object]) -> Shares:
    """Read the shares among a version's options. Raises ValueError, which names the option."""
    return Shares(*(_share(name, options.get(name, 0.0)) for name in OPTIONS))


def of_engine(options: Mapping[str, object]) -> dict[str, object]:
    """Return the options that are not about shares."""
    return {name: value for name, value in options.items() if name not in OPTIONS}


def draw(key: str, salt: str) -> float:
    """Return a number above 0 and up to 1 that is always the same for a key and a salt."""
    digest = blake2b(key.encode(), digest_size=8, key=blake2b(salt.encode()).digest()[:32]).digest()
    return ((int.from_bytes(digest, "big") >> 11) + 1) / (1 << 53)


def version_for(key: str, default: str, canaries: Sequence[tuple[str, float]]) -> str:
    """Return the version that a key gets.

    canaries: versions with the shares that they get; the default gets the rest. Shares of more
    than 1 in all are taken for parts of their sum.
    """
    weights = [(name, share) for name, share in canaries if share > 0.0]
    if not weights:
        return default
    weights.append((default, max(0.0, 1.0 - sum(share for _, share in weights))))
    return max(weights, key=lambda each: (_score(key, *each), each[0]))[0]


def is_shadowed(key: str, version: str, share: float) -> bool:
    """Tell whether a version gets a copy; another hash than that of canaries decides."""
    return share > 0.0 and draw(key, f"shadow {version}") <= share


def _score(key: str, version: str, weight: float) -> float:
    if weight <= 0.0:
        return -math.inf
    drawn = draw(key, f"canary {version}")
    return math.inf if drawn >= 1.0 else -weight / math.log(drawn)


def _share(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise ValueError(f"{name} must be a number from 0 to 100")
    return value / 100.0
