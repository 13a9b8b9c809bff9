"""Images that are copies of others, byte for byte or nearly: leaks, contradictions, duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stochnorm.data.copies import copies
from stochnorm.data.inspection.findings import Finding
from stochnorm.data.inspection.look import BITS, Look
from stochnorm.data.inspection.similar import Pair, similar_pairs
from stochnorm.data.manifest import Row

__all__ = ["copied_images", "findings_of_pairs"]

_SPLITS = "train", "val", "test"


def copied_images(root: Path, rows: Sequence[Row], looks: Sequence[Look | str]) -> list[Finding]:
    """Return the images that are copies of others, byte for byte or nearly.

    Args:
        root: Folder that the rows' paths are relative to.
        rows: n images.
        looks: What was seen of each, or why it cannot be read.
    """
    place = {root / row.path: i for i, row in enumerate(rows)}
    same = [[place[path] for path in group] for group in copies(place)]
    readable = [i for i, look in enumerate(looks) if isinstance(look, Look)]
    found = similar_pairs([look.print for look in looks if isinstance(look, Look)])
    near = [pair._replace(first=readable[pair.first], second=readable[pair.second]) for pair in found]
    return findings_of_pairs(rows, near, same)


def findings_of_pairs(rows: Sequence[Row], near: Sequence[Pair], same: Sequence[Sequence[int]] = ()) -> list[Finding]:
    """Return what pairs of images say: at most one finding of a kind for each image, with the nearest other.

    A leak is told of the image that is later in train, val, test. A pair in two splits under two classes is a leak and
    a contradiction; one in neither is a duplicate.

    Args:
        rows: n images.
        near: Pairs of images that are nearly the same, the nearest first.
        same: Places of images with the same bytes.
    """
    group = {i: number for number, members in enumerate(same) for i in members}
    exact = [pair for members in same for pair in _chained(rows, members)]
    found: dict[tuple[str, int], Finding] = {}

    def tell(kind: str, later: int, first: int, value: str) -> None:
        found.setdefault((kind, later), Finding(kind, value, rows[later], rows[first]))

    words: list[tuple[int, int, str]] = [(first, second, "the same bytes") for first, second in exact]
    words += [
        (pair.first, pair.second, _nearness(pair))
        for pair in near
        if not (pair.first in group and group[pair.first] == group.get(pair.second))
    ]
    for first, second, value in words:
        one, other = rows[first], rows[second]
        if one.split != other.split:
            by_split = sorted((first, second), key=lambda i: _SPLITS.index(rows[i].split))
            tell("leak", by_split[1], by_split[0], value)
        if one.label != other.label:
            tell("contradiction", second, first, value)
        if one.split == other.split and one.label == other.label:
            tell("duplicate", second, first, value)
    return list(found.values())


def _chained(rows: Sequence[Row], members: Sequence[int]) -> list[tuple[int, int]]:
    """Return pairs of copies: each with the first of each split and class, so that they are few for many copies."""
    heads: dict[tuple[str, str], int] = {}
    for i in members:
        heads.setdefault((rows[i].split, rows[i].label), i)
    return sorted({(min(i, head), max(i, head)) for i in members for head in heads.values() if i != head})


def _nearness(pair: Pair) -> str:
    how = "nearly the same" if not pair.mirrored else "nearly the mirror image"
    return f"{how} ({pair.distance} of {BITS} bits differ)"
