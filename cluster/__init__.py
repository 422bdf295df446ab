"""Nodes and what they share: life cycle, configuration, registry, identity, command line."""
