"""Extension of Griffe: references in docstrings to names that the site does not show are shown as code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe

_SHOWN = set(
    re.findall(r"^::: (\S+)", (Path(__file__).parents[1] / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
)
_REFERENCE = re.compile(r"\[([\w.]+)\]\[\]")
_ROLE = re.compile(r":\w+:`([^`]+)`")


class References(griffe.Extension):
    """Rewrite docstrings."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite that of an object."""
        if obj.docstring:
            text = _REFERENCE.sub(lambda m: m[0] if m[1] in _SHOWN else f"`{m[1].split('.')[-1]}`", obj.docstring.value)
            # Brackets behind brackets, as in indices, would be taken for a reference.
            text = re.sub(r"\](?=\[(?!\]))", "] ", text)
            obj.docstring.value = _ROLE.sub(r"`\1`", text)
