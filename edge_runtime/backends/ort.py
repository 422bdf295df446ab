"""ONNX Runtime, imported with its telemetry off; everything here takes it from this module.

From 1.29 on its Linux builds report to their maker by default, model names and hardware among
what they tell, and leave an identifier in the user's cache. The switch is read when the
library is loaded, so it has to be set first.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime  # noqa: TID251

__all__ = ["onnxruntime"]
