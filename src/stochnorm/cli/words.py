"""The words of a command line that people know from other tools, in ours; and hints for those that we do not know."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

from stochnorm.runs.synonyms import SYNONYMS, meant

__all__ = ["COMMAND_SYNONYMS", "WrongWordsError", "known_command", "known_options"]

COMMAND_SYNONYMS = {
    "train": "finetune",
    "fit": "finetune",
    "fine-tune": "finetune",
    "classify": "predict",
    "infer": "predict",
    "eval": "evaluate",
    "val": "evaluate",
    "test": "evaluate",
    "benchmark": "compare",
    "search": "tune",
    "list": "ls",
}
"""The command that each name stands for."""


class WrongWordsError(ValueError):
    """An error: a command or an option that there is not."""


def known_command(name: str, commands: Collection[str]) -> str:
    """Return the command that a first word means.

    Raises:
        WrongWordsError: There is none; the message names a similar one.
    """
    name = COMMAND_SYNONYMS.get(name, name)
    if name not in commands:
        near = difflib.get_close_matches(name, [*commands, *COMMAND_SYNONYMS], n=1)
        hint = f", did you mean {COMMAND_SYNONYMS.get(near[0], near[0])}?" if near else ""
        raise WrongWordsError(f"unknown command {name!r}{hint}; commands are {', '.join(commands)}")
    return name


def known_options(kind: type[Any], args: Sequence[str]) -> list[str]:
    """Return arguments with our names of the options, where another tool's are given.

    Raises:
        WrongWordsError: An option counts epochs, and the command has steps.
    """
    names = [field.name for field in fields(kind)]
    given: list[str] = []
    for place, arg in enumerate(args):
        if arg == "--":
            return [*given, *args[place:]]
        option, equals, value = arg.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if option.startswith("--") and name not in names:
            if "epochs" in name and (hint := meant(name, names)):
                raise WrongWordsError(f"unknown option {option}{hint}; give --steps")
            if SYNONYMS.get(name) in names:
                arg = "--" + SYNONYMS[name].replace("_", "-") + equals + value
        given.append(arg)
    return given
