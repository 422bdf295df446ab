"""Commands that the documentation shows exist, with the options it gives them."""

from __future__ import annotations

import re
from typing import Any

import typer

from cluster.cli.main import app
from tests.docs.pages import DOCS, ROOT, commands

ROOT_COMMAND: Any = typer.main.get_command(app)


def options(command: Any) -> dict[str, Any]:
    found = {name: p for p in command.params if p.param_type_name == "option" for name in p.opts}
    return {**found, "--help": None}


def problem(words: tuple[str, ...]) -> str | None:
    """Walk a command line as the parser would; None when every word has a place."""
    command = ROOT_COMMAND
    rest = list(words)
    values = 0
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            name, equals, _ = word.partition("=")
            if name not in options(command):
                return f"{command.name} has no option {name}"
            option = options(command)[name]
            if option is not None and not option.is_flag and not equals and rest:
                rest.pop(0)
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return None if word == "..." or word.isupper() else f"no command {word}"
            command = command.commands[word]
        else:
            values += 1
            arguments = [p for p in command.params if p.param_type_name == "argument"]
            if values > len(arguments) and not any(p.nargs == -1 for p in arguments):
                return f"{command.name} takes no further argument {word}"
    return None


def leaves(command: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        return [(path, command)]
    return [leaf for name, sub in command.commands.items() for leaf in leaves(sub, (*path, name))]


def test_every_prime_spark_command_that_is_shown_exists() -> None:
    shown = commands("prime-spark")
    assert len(shown) > 40, "the pages were not read"
    wrong = [f"{command} ({why})" for command in shown if (why := problem(command.words))]
    assert not wrong, "\n".join(wrong)


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert problem(("model", "sreve", "digits"))
    assert problem(("token", "--scopes", "infer"))
    assert problem(("up", "now"))


def test_every_make_target_that_is_shown_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    shown = [(command, command.words[0]) for command in commands("make") if command.words]
    assert len(shown) > 10, "the pages were not read"
    wrong = [str(command) for command, target in shown if target not in targets]
    assert not wrong, "\n".join(wrong)


def test_the_reference_names_every_command_with_all_its_options_and_its_help() -> None:
    text = (DOCS / "reference" / "cli.md").read_text("utf-8")
    section = r"^#+ (prime-spark [^\n]+)\n(.*?)(?=^#|\Z)"
    sections: dict[str, str] = dict(re.findall(section, text, re.MULTILINE | re.DOTALL))
    wrong: list[str] = []
    for path, command in leaves(ROOT_COMMAND, ("prime-spark",)):
        body = sections.pop(" ".join(path), "")
        named = set(re.findall(r"^\| `(--[a-z-]+)", body, re.MULTILINE))
        if named != set(options(command)) - {"--help"}:
            wrong.append(f"{' '.join(path)}: options {sorted(named)}")
        if " ".join((command.help or "").split()) not in " ".join(body.split()):
            wrong.append(f"{' '.join(path)}: its help says: {command.help}")
    groups = {f"prime-spark {name}" for name in ROOT_COMMAND.commands}
    assert not wrong, "\n".join(wrong)
    assert set(sections) <= groups, "the reference has commands that are gone"
