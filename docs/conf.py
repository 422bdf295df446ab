"""How `make docs` builds the documentation; warnings are errors."""

from __future__ import annotations

import sys
from importlib.metadata import version as distribution_version
from pathlib import Path

import ray.serve  # noqa: F401
import torch  # noqa: F401 (autodoc would import both with TYPE_CHECKING on, which they refuse)

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "Prime Spark"
author = "The Prime Spark authors"
copyright = author  # noqa: A001 (Sphinx's name)
release = version = distribution_version("prime-spark")

extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "plain_docstrings",
]
exclude_patterns = ["_build", "_ext", "reference/api/*/modules.rst"]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

# The API reference is written anew from the sources by every build.
PACKAGES = ("policies", "edge_runtime", "cluster", "serve_apps", "train")
apidoc_modules = [
    {
        "path": f"../{package}",
        "destination": f"reference/api/{package}",
        "exclude_patterns": ["**/proto/*"],
        "automodule_options": ["members"],
        "separate_modules": True,
        "module_first": True,
    }
    for package in PACKAGES
]
# A package's `__all__` names what its modules define; each name is described once, where it is.
autodoc_default_options = {"members": True, "member-order": "bysource", "ignore-module-all": True}
autodoc_mock_imports = ["hailo_platform"]  # the vendor's, on boxes that have a device only
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
suppress_warnings = ["ref.python"]  # two modules may have a type of the same name

html_theme = "furo"
html_title = f"Prime Spark {release}"
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
