"""The accelerator host: the child process that owns the device.

It may run under another interpreter than the runtime (the vendor's binding wants numpy 1.x), so
everything here and in `wire` keeps to Python 3.9, the standard library and numpy 1.24 to 2.x.
"""
