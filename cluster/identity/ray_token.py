"""The token that every process of the Ray cluster shows to the others.

Ray's ports run code for whoever reaches them and listen on all interfaces, so this token is
what keeps others out. Ray reads the file itself (`RAY_AUTH_TOKEN_PATH`).
"""

from __future__ import annotations

import secrets
from pathlib import Path

from cluster.home import Home
from cluster.identity.files import create_secret, read_secret
from edge_runtime.errors import Corrupt

_BYTES = 32


def ensure_ray_token(home: Home) -> Path:
    """Return the token's file, created if it was not there (mode 0600).

    Raises Unavailable (others can read it, not writable) and Corrupt (too short, not one word).
    """
    if not home.ray_token.exists():
        create_secret(home.ray_token, secrets.token_hex(_BYTES).encode())
    token = read_secret(home.ray_token)
    if len(token) < _BYTES or len(token.split()) != 1 or not token.isascii():
        raise Corrupt(
            f"{home.ray_token} does not hold a token",
            hint="remove it while the cluster is down; `prime-spark up` makes a new one",
        )
    return home.ray_token
