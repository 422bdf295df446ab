"""Keeps a replica's own port on loopback where the node is on loopback.

Ray Serve 2.60 binds the server that handles call (Ray's token is asked for there) to `[::]`,
whatever the node's address is (`ray/serve/_private/replica.py`, `_on_initialized`). A replica
that calls this first binds it to the node's address instead. Remove it when Serve does so
itself; `tests/e2e` looks at every listener.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.serve._private import replica


def stay_on_loopback() -> None:
    """Bind what this replica opens from now on to loopback, if that is the node's address."""
    address = ray.util.get_node_ip_address()
    if not address.startswith("127."):
        return
    module: Any = replica
    add_port = module.add_port_to_grpc_server

    def on_node_address(server: Any, wanted: str) -> Any:
        return add_port(server, wanted.replace("[::]", address, 1))

    module.add_port_to_grpc_server = on_node_address
