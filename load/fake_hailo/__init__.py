"""A Hailo accelerator for machines that have none: the vendor's Python package, and its breakdowns.

`driver/hailo_platform` is what a program imports in place of the vendor's package; `device.py`
tells the pretended device what it is and when to fail; `hef.py` compiles ONNX models for it.
"""
