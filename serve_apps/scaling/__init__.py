"""Predictive scaling on the cluster: who counts, who forecasts, who decides.

Each gateway writes what came and how busy the cloud replicas are into a small file, once a second
(`spool`, `gateway.arrivals`). One forecaster reads these files and writes a forecast into another
(`forecaster`, `ledger`). Serve's controller, which asks ten times a second, only looks whether that
one has changed and combines it with its own live numbers (`policy`). A file that is too old does
not count, so whoever dies is noticed, and scaling goes on by reacting.
"""
