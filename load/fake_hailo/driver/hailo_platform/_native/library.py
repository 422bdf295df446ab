"""The one library of this process: which version was loaded, and which device it looks at.

The environment variable FAKE_HAILO_DIR names the device's folder. A library that is not
there fails the import as the loader of shared objects would.
"""

from __future__ import annotations

import os
from pathlib import Path

from .folder import Folder


def _load() -> tuple[Folder, str]:
    named = os.environ.get("FAKE_HAILO_DIR")
    folder = Folder(Path(named) if named else None)
    version = folder.orders().library_version
    if folder.orders().library_missing:
        raise ImportError(
            f"libhailort.so.{version}: cannot open shared object file: No such file or directory"
        )
    return folder, version


FOLDER, VERSION = _load()
MAJOR = int(VERSION.split(".", 1)[0])
BINDING_VERSION = FOLDER.orders().binding_version or VERSION
