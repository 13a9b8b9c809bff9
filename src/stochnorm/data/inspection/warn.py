"""What training warns of besides copies byte for byte: images that are nearly the same, in two splits or classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torchvision.transforms import v2

from stochnorm.data.copies import copies
from stochnorm.data.images.store import ImageStore
from stochnorm.data.inspection.alike import findings_of_pairs
from stochnorm.data.inspection.findings import Finding
from stochnorm.data.inspection.look import print_of
from stochnorm.data.inspection.similar import similar_pairs
from stochnorm.data.manifest import Row
from stochnorm.text import count, some

__all__ = ["near_warnings"]

_MOST = 1000  # images that are compared: a third of a millisecond each

_known: dict[tuple[Path, tuple[Row, ...]], list[str]] = {}  # of this process: runs of one command share their images


def near_warnings(store: ImageStore) -> list[str]:
    """Return what is wrong with images that are nearly the same and no copies, a sentence each; empty if nothing is.

    Nothing is looked for among more than 1,000 images: training should not wait for it, and `stochnorm inspect` does.

    Args:
        store: The images of a run; their rows say which split each is in.
    """
    if len(store) > _MOST:
        return []
    key = store.root, tuple(store.rows)
    if key not in _known:
        _known[key] = _sentences(store)
    return _known[key]


def _sentences(store: ImageStore) -> list[str]:
    pairs = similar_pairs([print_of(v2.functional.to_pil_image(store[i])) for i in range(len(store))])
    paths = [store.root / row.path for row in store.rows]
    alike = {path: n for n, group in enumerate(copies(paths[i] for p in pairs for i in p[:2])) for path in group}
    near = [p for p in pairs if alike.get(paths[p.first], -1) != alike.get(paths[p.second], -2)]
    found = findings_of_pairs(store.rows, near)
    said = []
    for kind, what in (("leak", "in two splits, so scores are too optimistic"), ("contradiction", "under two classes")):
        of = [finding for finding in found if finding.kind == kind]
        if of:
            said.append(
                f"{count(len(of), 'image')} nearly the same as others, {what}: {some(_names(of), 3)}; look at them "
                "with stochnorm inspect"
            )
    return said


def _names(findings: Sequence[Finding]) -> list[str]:
    return [f"{f.image.path} = {f.other.path}" for f in findings if f.image is not None and f.other is not None]
