"""The order of a command's options."""

from __future__ import annotations

from typing import Any, TypeVar

__all__ = ["own_options_first"]

Command = TypeVar("Command")


def own_options_first(command: type[Command]) -> type[Command]:
    """Lets ``--help`` list what is peculiar to a command before the many options that it inherits; for a dataclass."""
    dataclass: Any = command
    fields = dataclass.__dataclass_fields__
    dataclass.__dataclass_fields__ = {name: fields[name] for name in dict.fromkeys([*command.__annotations__, *fields])}
    return command
