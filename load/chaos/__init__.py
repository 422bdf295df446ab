"""Fault runs: break what can break while clients ask, and check every single answer.

`python -m load.chaos.edge` is the edge runtime's. Its faults are drawn from a seed (`schedule`),
its clients live in a process of their own (`clients`), each answer is compared with what that very
input gives on the rung that the answer names (`answers`), and `marks` says what must hold.
"""
