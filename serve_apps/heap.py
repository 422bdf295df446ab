"""Keeps the garbage collector from looking through what a replica has for good.

Ray, Serve and numpy leave some hundred thousand objects. A full collection looks at all of them,
and the event loop with every request on it stands still meanwhile.
"""

from __future__ import annotations

import gc


def settle() -> None:
    """Leave what the start made out of later collections; call once, before requests come."""
    gc.collect()
    gc.freeze()
