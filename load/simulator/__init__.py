"""Replays traffic over a model of sites, nodes and gateways that decide by `policies`."""
