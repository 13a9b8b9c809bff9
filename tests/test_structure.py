"""The structure of the source: imports go down the floors, no two files import each other, no file is long."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import stochnorm

SOURCE = Path(stochnorm.__file__).parent
FLOORS = [
    {"cli"},
    {"paper"},
    {"comparison"},
    {"doctor", "tuning"},
    {"training", "exporting"},
    {"evaluation", "report"},
    {"runs"},
    {"models", "methods"},
    {"regularizers", "data", "integrations"},
    {"nn"},
    {"plotting"},
    {"outputs"},
    {"terminal"},
    {"errors", "files", "kinds", "spreadsheet", "text"},
]
"""From the top down. A file imports from its own folder and from lower floors."""

NEVER = {
    "nn": {"errors", "files", "kinds", "outputs", "spreadsheet", "terminal", "text", "plotting"},
    "regularizers": {"data", "models", "runs"},
    "data": {"models"},
    "methods": {"runs"},
    "report": {"training", "comparison"},
    "evaluation": {"training"},
    "exporting": {"training", "report"},
}
"""Besides what the floors say."""


def modules() -> dict[str, Path]:
    names = {path: ".".join(("stochnorm", *path.relative_to(SOURCE).with_suffix("").parts)) for path in files()}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imports(tree: ast.Module, known: set[str]) -> Iterator[str]:
    """Yield the modules of stochnorm that a file imports, inside functions too; not what only type checkers read."""
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield inside if inside in known else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Which module imports which, within stochnorm."""
    paths = modules()
    return {
        name: {found for found in imports(ast.parse(path.read_text()), set(paths)) if found in paths} - {name}
        for name, path in paths.items()
    }


def folder(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_folder_has_a_floor() -> None:
    placed = set.union(*FLOORS)
    assert {folder(name) for name in modules()} - {"", "__main__"} == placed


def test_imports_go_down(graph: dict[str, set[str]]) -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for name, imported in graph.items():
        here = folder(name)
        if here in ("", "__main__"):  # the lazy public names; the command
            continue
        for other in imported:
            there = folder(other)
            assert there == here or (there and floor[there] > floor[here]), f"{name} imports {other}"
            assert there not in NEVER.get(here, ()), f"{name} imports {other}"


def test_no_files_import_each_other(graph: dict[str, set[str]]) -> None:
    """Neither directly nor by way of others. A package's ``__init__`` counts where it is imported by name."""
    ended: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            raise AssertionError(" -> ".join([*path[path.index(name) :], name]))
        if name in ended:
            return
        for other in graph[name]:
            visit(other, [*path, name])
        ended.add(name)

    for name in graph:
        visit(name, [])


def test_the_graph_is_read(graph: dict[str, set[str]]) -> None:
    """The checks above look at something: known imports, at the top of a file and inside a function."""
    assert "stochnorm.nn.functional" in graph["stochnorm.nn.stochastic"]
    assert "stochnorm.regularizers.attention" in graph["stochnorm.methods.delta"]
    assert sum(map(len, graph.values())) > 300


def test_the_root_holds_ten_modules() -> None:
    assert {path.name for path in SOURCE.glob("*.py")} == {
        "__init__.py", "__main__.py", "errors.py", "files.py", "kinds.py", "outputs.py", "plotting.py",
        "spreadsheet.py", "terminal.py", "text.py",
    }  # fmt: skip


def test_files_are_short() -> None:
    lines = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in files()}
    assert not {name: count for name, count in lines.items() if count > 300}
    assert statistics.median(lines.values()) <= 100


def test_floors_are_disjoint() -> None:
    assert sum(map(len, FLOORS)) == len(set.union(*FLOORS))
    assert all(not upper & lower for upper, lower in pairwise(FLOORS))


def test_everything_is_printed_through_the_terminal_that_shows_control_characters_as_escapes() -> None:
    """A worker's answers, and the question to a process of its own, are JSON and numbers."""
    silent = "terminal.py", "comparison/executors/worker.py", "comparison/executors/shares.py"
    loud = {"print", "Console"}
    for path in set(files()) - {SOURCE / name for name in silent}:
        calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        assert not loud & {call.id for call in calls if isinstance(call, ast.Name)}, path
