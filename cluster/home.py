"""Where everything of one installation lives: one folder, one name for each place in it.

`$PRIME_SPARK_HOME` (default `~/.prime-spark`) is the whole state: deleting it is a factory
reset, copying it is a backup. Unix sockets and Ray's session must have short paths (the kernel
takes 107 bytes), so `run` moves to a private folder below `/tmp` when the home's own path is
long; `prime-spark down` removes it. Not below TMPDIR: that may differ from shell to shell, and
`down` has to find what `up` started.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_runtime.errors import Unavailable

# Ray adds up to 66 bytes to its folder: a session name and `/sockets/plasma_store_1`.
_LONGEST_ROOT: Final = 32
_SHORT_FOLDER: Final = Path("/tmp")  # noqa: S108 (the folder in it is checked to be private)


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of an installation; `at` makes sure that it is there and private."""

    root: Path

    @classmethod
    def of(cls, root: str | Path) -> Home:
        """Return a home that may not be there. Raises RuntimeError for an unknown user's."""
        return cls(Path(root).expanduser().absolute())

    @classmethod
    def at(cls, root: str | Path) -> Home:
        """Open or create a home (mode 0700). Raises Unavailable when that is not possible."""
        try:
            home = cls.of(root)
            home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            home.logs.mkdir(mode=0o700, exist_ok=True)
            home.identity.mkdir(mode=0o700, exist_ok=True)
            _check_private(home.identity)
        except (OSError, RuntimeError) as error:
            raise Unavailable(
                f"the home {root} cannot be used: {getattr(error, 'strerror', None) or error}",
                hint="set PRIME_SPARK_HOME to a folder that you may write",
            ) from None
        return home

    def make_run(self) -> None:
        """Create `run` for a cluster that starts. Raises Unavailable unless it is private."""
        _make_private(self.run)
        _make_private(self.scratch)
        _make_private(self.scaling_run)

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def cache(self) -> Path:
        """What can be made again; nobody misses it when it is deleted."""
        return self.root / "cache"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def requests(self) -> Path:
        """The request log: what became of every request, and what it cost."""
        return self.logs / "requests"

    @property
    def budgets(self) -> Path:
        """What each gateway has spent of the budgets."""
        return self.root / "budgets"

    @property
    def scaling(self) -> Path:
        """What came in past seasons, for forecasts."""
        return self.root / "scaling"

    @property
    def scaling_run(self) -> Path:
        """What gateways, forecaster and Serve's controller tell each other about scaling."""
        return self.run / "scaling"

    @property
    def scaling_log(self) -> Path:
        """Decisions about the number of replicas, one JSON object a line."""
        return self.logs / "scaling.log"

    @property
    def identity(self) -> Path:
        return self.root / "identity"

    @property
    def signing_key(self) -> Path:
        return self.identity / "signing-key.pem"

    @property
    def jwks(self) -> Path:
        """Public keys that tokens are checked against (RFC 7517)."""
        return self.identity / "jwks.json"

    @property
    def api_keys(self) -> Path:
        return self.identity / "api-keys.sqlite"

    @property
    def ray_token(self) -> Path:
        return self.identity / "ray-token"

    @property
    def run(self) -> Path:
        """State of the running cluster: sockets, process records, Ray's session."""
        return self._short("run")

    @property
    def edge(self) -> Path:
        """What the edge runtime of this machine keeps: its models, what it serves."""
        return self.root / "edge"

    @property
    def edge_run(self) -> Path:
        """The edge runtime's sockets; not in `run`, because it outlives the cluster."""
        return self._short("edge-run")

    @property
    def edge_socket(self) -> Path:
        return self.edge_run / "edge.sock"

    @property
    def edge_grpc_socket(self) -> Path:
        return self.edge_run / "edge-grpc.sock"

    def make_edge_run(self) -> Path:
        """Create `edge_run`. Raises Unavailable unless it is private."""
        return _make_private(self.edge_run)

    @property
    def scratch(self) -> Path:
        """Temporary files of the cluster's processes, so that `down` removes them too."""
        return self.run / "tmp"

    @property
    def ray(self) -> Path:
        return self.run / "ray"

    @property
    def state(self) -> Path:
        """What was started, and when (JSON)."""
        return self.run / "cluster.json"

    @property
    def lock(self) -> Path:
        """Held while a command changes the cluster; outside `run`, which `down` removes."""
        return self.root / "cluster.lock"

    @property
    def front_door(self) -> Path:
        """The front door's generated configuration."""
        return self.run / "haproxy.cfg"

    def _short(self, name: str) -> Path:
        if len(os.fsencode(self.root)) <= _LONGEST_ROOT:
            return self.root / name
        tag = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:10]
        suffix = "" if name == "run" else "-edge"
        return _SHORT_FOLDER / f"ps-{os.geteuid()}-{tag}{suffix}"

    def gateway_lock(self, slot: int) -> Path:
        return self.run / f"gateway-{slot}.lock"

    def gateway_http_socket(self, slot: int) -> Path:
        return self.run / f"gateway-{slot}.http"

    def gateway_grpc_socket(self, slot: int) -> Path:
        return self.run / f"gateway-{slot}.grpc"


def _make_private(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _check_private(folder)
    except OSError as error:
        raise Unavailable(f"{folder} cannot be made: {error.strerror}") from None
    return folder


def _check_private(folder: Path) -> None:
    """Raise Unavailable unless it is a folder that only this user can enter.

    A link is refused as well: below `/tmp`, somebody else could have put it there.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise Unavailable(f"{folder} is not a folder", hint="remove it")
    if found.st_uid != os.geteuid():
        raise Unavailable(f"{folder} belongs to another user", hint="use a home of your own")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise Unavailable(f"{folder} is not private to this user", hint=f"chmod 700 {folder}")
