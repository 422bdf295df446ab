"""Shows docstrings as they are written: plain text with `code`, lists and indented blocks.

The project's docstrings are for reading in an editor, so they are not reStructuredText. This
turns them into it: what is indented becomes a literal block, backticks become code, and every
other character stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from sphinx.application import Sphinx

_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_SPECIAL = re.compile(r"([\\*`|_<>])")
_BULLET = re.compile(r"- |\d+\. ")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}


def _process(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    lines[:] = list(translate(lines))


def translate(lines: Sequence[str]) -> Iterator[str]:
    """Yield reStructuredText that shows these lines."""
    for paragraph in _paragraphs(lines):
        if all(line.startswith("  ") for line in paragraph):
            yield from ("::", "", *(f"  {line}" for line in paragraph), "")
        elif _BULLET.match(paragraph[0]):
            yield from _list(paragraph)
        elif any(line.startswith("  ") for line in paragraph):
            yield from ("::", "", *(f"  {line}" for line in paragraph), "")
        else:
            yield _inline(" ".join(paragraph))
            yield ""


def _paragraphs(lines: Sequence[str]) -> Iterator[list[str]]:
    """Split at empty lines; an indented block keeps the empty lines inside it."""
    found: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            found.append(line.rstrip())
        elif found:
            yield found
            found = []


def _list(paragraph: Sequence[str]) -> Iterator[str]:
    items: list[str] = []
    for line in paragraph:
        if _BULLET.match(line):
            items.append(_BULLET.sub("", line, count=1))
        else:
            items[-1] += " " + line.strip()
    for item in items:
        yield f"- {_inline(item)}"
    yield ""


def _inline(text: str) -> str:
    parts: list[str] = []
    end = 0
    for code in _CODE.finditer(text):
        parts.append(_escape(text[end : code.start()]))
        parts.append(f"\\ ``{' '.join(code[2].split())}``\\ ")
        end = code.end()
    parts.append(_escape(text[end:]))
    return "".join(parts)


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
