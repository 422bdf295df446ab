"""Reading the documentation as data: code blocks, tables, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_SHELL = ("sh", "bash", "shell")


@dataclass(frozen=True, slots=True)
class Command:
    """A command as a page shows it. page: where."""

    words: tuple[str, ...]
    page: str

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def pages() -> list[Path]:
    """Every page that people read: the root's and those of docs, without what is generated."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    found += [
        page
        for page in sorted(DOCS.rglob("*.md"))
        if not {"_build", "api", "benchmarks"} & set(page.relative_to(DOCS).parts)
    ]
    return found


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the code blocks of some languages, without their indentation."""
    text = page.read_text("utf-8")
    return [
        "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))
        for indent, language, code in _BLOCK.findall(text)
        if language in languages
    ]


def commands(program: str) -> list[Command]:
    """Return each use of a program, in shell blocks and in running text."""
    found: list[Command] = []
    for page in pages():
        name = str(page.relative_to(ROOT))
        text = page.read_text("utf-8")
        shell = "\n".join(blocks(page, *_SHELL))
        lines = _without_here_documents(shell).replace("\\\n", " ").splitlines()
        spans = _SPAN.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for line in [*lines, *spans]:
            found += [Command(words, name) for words in _uses(line, program)]
    return found


def table(page: str, heading: str) -> list[list[str]]:
    """Return the rows of the table whose first heading is this; backticks are taken off."""
    lines = (DOCS / page).read_text("utf-8").splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows: list[list[str]] = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def _uses(line: str, program: str) -> Iterator[tuple[str, ...]]:
    """Find the words after a program, also inside `$(...)` and after `&&`."""
    line = line.partition(" #")[0]
    for part in re.split(r"\$\(|\)|&&|\|\||[|;>'\"]", line):
        try:
            words = shlex.split(part)
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words and words[0] in (program, f".venv/bin/{program}"):
            yield tuple(words[1:])


def _without_here_documents(shell: str) -> str:
    return re.sub(r"<<'(\w+)'\n.*?^\1$", "", shell, flags=re.MULTILINE | re.DOTALL)


def subcommand(words: Sequence[str]) -> list[str]:
    """Return the leading words that can be names of commands."""
    found: list[str] = []
    for word in words:
        if not re.fullmatch(r"[a-z]+", word):
            break
        found.append(word)
    return found
