"""Entering by the best gateway: a client library for those who run several regions.

Needs the standard library only, besides this package: no Ray, no torch, no HTTP library.
"""

import logging

from edge_runtime.entry.aio import AsyncEntryClient
from edge_runtime.entry.answers import Answer, GatewayGone
from edge_runtime.entry.client import EntryClient
from edge_runtime.entry.gateways import Seen

__all__ = ["Answer", "AsyncEntryClient", "EntryClient", "GatewayGone", "Seen"]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that logs hears of it
