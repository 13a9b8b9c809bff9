"""Images that a run has seen: those that it was trained on or selected by."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

from stochnorm.data import Row, Source, list_images
from stochnorm.data.manifest import list_manifest
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
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
        root = list_images(FinetuneConfig.load(run.config).data).root
        known = [root / row.path for row in list_manifest(run.split, exact=True).rows if row.split != "test"]
        copies = _copies([source.root / row.path for row in rows], known)
    except (OSError, ValueError) as error:
        text = f"cannot check whether images of {data} were used for training or selection ({error})"
        warnings.warn(text, stacklevel=3)
        return
    if copies:
        seen = [row.path for row in rows if source.root / row.path in copies]
        warnings.warn(
            f"{data}: {len(seen)} of {len(rows)} images were used for training or selection; scores are too "
            f"optimistic: {some(seen)}",
            stacklevel=3,
        )


def _copies(files: Sequence[Path], originals: Sequence[Path]) -> set[Path]:
    """Return the files that have the bytes of an original; only files of equal sizes are read."""
    sizes = {path: path.stat().st_size for path in (*files, *originals)}
    common = {sizes[path] for path in files} & {sizes[path] for path in originals}
    digests = {_digest(path) for path in originals if sizes[path] in common}
    return {path for path in files if sizes[path] in common and _digest(path) in digests}


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
