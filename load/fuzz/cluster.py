"""What the fuzzers need to know when they are told nothing: the cluster that runs here."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence

import psutil

from cluster.config import load_settings
from cluster.home import Home
from cluster.nodes import HEAD
from cluster.processes import belonging
from cluster.state import read_state
from load.access import command


def fill_in(options: argparse.Namespace, scopes: Sequence[str]) -> None:
    """Set `rest`, `grpc`, `token` and `pids` where they are missing. Raises NoGateway."""
    if options.rest is None:
        endpoints = json.loads(command("status", "--json"))["endpoints"]
        options.rest = endpoints["rest"]
        if getattr(options, "grpc", "") is None:
            options.grpc = endpoints["grpc"].partition("://")[2]
        if getattr(options, "pids", None) == ():
            options.pids = gateway_pids()
    if options.token is None:
        options.token = command("token", *(f"--scope={scope}" for scope in scopes)).strip()


def gateway_pids(environment: Mapping[str, str] = os.environ) -> tuple[int, ...]:
    """Return the gateway replicas' process ids."""
    home = Home.at(load_settings(environment).home)
    found = belonging(home, read_state(home).sessions).get(HEAD, [])
    return tuple(process.pid for process in found if _is_gateway(process))


def _is_gateway(process: psutil.Process) -> bool:
    try:
        return "".join(process.cmdline()).startswith("ray::ServeReplica:gateway:")
    except psutil.Error:
        return False
