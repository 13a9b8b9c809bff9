"""Hooks of MkDocs: pages of the project that lie outside of docs/, and the links to them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md", "results/README.md"]
"""Pages that the site shows under `project/`; and the pictures of results."""
_LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)\s]+)(\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and pictures from outside."""
    pictures = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("results/*/results.png"))]
    for name in [*OUTSIDE, *pictures]:
        files.append(File.generated(config, _place(name), abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links lead to where the pages are on the site; of other files of the repository, leave the name."""
    here = page.file.src_uri
    origin = here.removeprefix("project/") if here.startswith("project/") else f"docs/{here}"
    known = {*OUTSIDE, *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("results/*/results.png"))}

    def moved(link: re.Match[str]) -> str:
        path, hash_, anchor = link[2].partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        if target in known:
            target = _place(target)
        elif target.startswith("docs/"):
            target = target.removeprefix("docs/")
        else:
            return "](" + posixpath.relpath("index.md", posixpath.dirname(here) or ".") + ")"
        return link[1] + posixpath.relpath(target, posixpath.dirname(here) or ".") + hash_ + anchor + link[3]

    # Commands stand there without a prompt: the highlighting of a console would take them for output.
    return _LINK.sub(moved, markdown).replace("```console", "```sh")


def _place(name: str) -> str:
    """Return where the site has a file of the repository."""
    return f"project/{name}"
