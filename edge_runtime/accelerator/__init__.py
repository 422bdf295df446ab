"""Accelerators: a child process that owns the device, and what keeps it alive.

`host` runs in the child; `wire` is what both sides speak; `process` is one child as the runtime
sees it; `device` starts, watches and replaces children, and offers models on them.
"""
