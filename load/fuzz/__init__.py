"""Malformed requests against a live server: `python -m load.fuzz`, `python -m load.fuzz.openapi`.

An attack is a valid request bent in one way that has a name. Attack number n of seed s is always
the same one, so a finding can be sent again alone (`--only n`).
"""
