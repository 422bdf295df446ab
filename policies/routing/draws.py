"""Numbers from the random bits of a request, so that whatever a rule draws can be repeated."""

from __future__ import annotations


def uniform(draw: int, salt: int = 0) -> float:
    """Return a number in [0, 1) from 64 random bits; other salts give other numbers.

    The mixing is SplitMix64's (Steele, Lea, Flood, 2014).
    """
    z = (draw + (salt + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)
