"""The names of the package: each is there, listed and typed, and imported no sooner than it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import stochnorm


def printed(code: str) -> str:
    """Return the output of a fresh process."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def test_the_package_alone_imports_nothing_and_knows_its_names() -> None:
    loaded = "[m for m in sys.modules if m.partition('.')[0] in ('stochnorm', 'torch', 'numpy')]"
    code = f"import sys, stochnorm; print(set(stochnorm.__all__) - set(dir(stochnorm)), {loaded})"
    assert printed(code) == "set() ['stochnorm']"


def test_the_layers_and_regularizers_need_torch_alone() -> None:
    heavy = ["timm", "torchvision", "lightning_fabric", "matplotlib", "tyro", "rich"]
    code = "import sys, stochnorm; stochnorm.nn.schedule; stochnorm.convert; import stochnorm.regularizers; "
    assert printed(code + f"print([m for m in ['torch', *{heavy}] if m in sys.modules])") == "['torch']"


@pytest.mark.parametrize("name", stochnorm.__all__)
def test_a_public_name_is_there(name: str) -> None:
    assert getattr(stochnorm, name).__name__ == name


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'stochnorm' has no attribute 'stochastic'"):
        stochnorm.stochastic  # noqa: B018


def test_public_names_are_listed_typed_and_imported_alike() -> None:
    tree = ast.parse(Path(stochnorm.__file__).read_text())
    typed = {
        name.name: statement.module
        for block in tree.body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for name in statement.names
    }
    assert typed == stochnorm._LAZY
    assert sorted(typed) == sorted(stochnorm.__all__)
