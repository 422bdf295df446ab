"""`ray start` for a node that must stay on this machine: `python -m cluster.ray_node ...`.

Ray 2.60 replaces a loopback address by the machine's own and then listens on every interface
with all its processes (docs/adr/0003). Told otherwise, its processes bind to the node's address
and stay on loopback. Three facts of the command line are changed, before it reads its arguments:

- a loopback address stays what it is (`resolve_ip_for_localhost`);
- joining a head by loopback is allowed (`ENABLE_RAY_CLUSTER`, off in the environment so that
  every child believes in loopback too);
- the server for Ray Client, which nobody here uses, is not started.

Nothing else is touched. Remove this when `ray start` honours `--node-ip-address 127.0.0.1`;
`tests/e2e` checks that no listener of ours is reachable from outside.
"""

from __future__ import annotations

import sys
from typing import Any


def main() -> int:
    """Run Ray's own command line with those three changes."""
    from ray._private import ray_constants, services
    from ray.scripts import scripts as command_line

    scripts: Any = command_line
    ray_constants.ENABLE_RAY_CLUSTER = True
    services.resolve_ip_for_localhost = _unchanged
    services.get_node_ip_address = _loopback
    scripts.get_ray_client_dependency_error = _no_client
    result = scripts.main()
    return int(result or 0)


def _unchanged(host: str) -> str:
    return host


def _loopback(address: str | None = None) -> str:
    return "127.0.0.1"


def _no_client() -> ImportError:
    return ImportError("not used here")


if __name__ == "__main__":
    sys.exit(main())
