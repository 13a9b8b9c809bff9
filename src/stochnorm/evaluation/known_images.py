"""Images that a run has seen: those that it was trained on or selected by."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from stochnorm.data import Row, Source, list_images
from stochnorm.data.copies import copies
from stochnorm.data.manifest import list_manifest
from stochnorm.runs.directory import Run
from stochnorm.runs.images import changed_images
from stochnorm.text import some

__all__ = ["warn_of_known_images"]


def warn_of_known_images(run: Run, source: Source, rows: Sequence[Row], data: str) -> None:
    """Warn of images with the same bytes as one that the run was trained on or selected by.

    Args:
        run: The run.
        source: The images to evaluate on.
        rows: Rows of those images.
        data: Name of the images, for the message.
    """
    try:
        root = list_images(run.data()).root
        known = [root / row.path for row in list_manifest(run.split, exact=True).rows if row.split != "test"]
        asked = [source.root / row.path for row in rows]
        if changed := changed_images(run, root, {str(path.relative_to(root)) for path in known}):
            raise ValueError(f"the run's own have changed since: {some(changed)}")
        seen_before = _copies(asked, known)
    except (OSError, ValueError) as error:
        text = f"cannot check whether images of {data} were used for training or selection ({error})"
        warnings.warn(text, stacklevel=3)
        return
    if seen_before:
        seen = [row.path for row in rows if source.root / row.path in seen_before]
        warnings.warn(
            f"{data}: {len(seen)} of {len(rows)} images were used for training or selection; scores are too "
            f"optimistic: {some(seen)}",
            stacklevel=3,
        )


def _copies(files: Sequence[Path], originals: Sequence[Path]) -> set[Path]:
    """Return the files that are originals, or have the bytes of one.

    Raises:
        OSError: An original no longer exists.
    """
    for path in originals:
        path.stat()
    there = set(originals)
    same = {path for group in copies([*originals, *files]) if not there.isdisjoint(group) for path in group}
    return {path for path in files if path in there or path in same}
