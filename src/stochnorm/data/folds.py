"""Folds: parts of labelled images, each of which is tested once by a model that is trained on the others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from stochnorm.data.labels import encode_labels
from stochnorm.data.manifest import Row
from stochnorm.data.splits import assign_splits, check_groups, generator
from stochnorm.text import count, some

__all__ = ["fold_splits", "folds_of"]


def folds_of(targets: Tensor, groups: Sequence[str], count: int, seed: int) -> Tensor:
    """Return the fold of each image, (n,): classes are spread evenly, and images of a group stay together.

    Args:
        targets: (n,) class numbers, or (n, c) findings.
        groups: Group of each image, such as its patient; empty for an image by itself.
        count: Number of folds.
        seed: Random seed.
    """
    kind = targets.tolist() if targets.ndim == 1 else [tuple(row) for row in targets.tolist()]
    units: dict[tuple[str, int], list[int]] = {}
    for i, group in enumerate(groups):
        units.setdefault((group, 0) if group else ("", i + 1), []).append(i)
    members = list(units.values())
    shuffled = torch.randperm(len(members), generator=generator("folds", seed)).tolist()
    dealt = sorted(shuffled, key=lambda u: kind[members[u][0]])  # stable: random within a class
    folds = torch.empty(len(targets), dtype=torch.int64)
    for position, unit in enumerate(dealt):
        folds[members[unit]] = position % count
    return folds


def fold_splits(
    rows: Sequence[Row], classes: Sequence[str], folds: int, *, val_fraction: float, seed: int, multi_label: bool
) -> list[list[Row]]:
    """Divide images into folds; return for each fold all rows with their splits, then those of a model for use.

    A fold's images are its test split; a validation split is cut from the others, the rest trains. The last list has no
    test split: all images train, but its validation part.

    Args:
        rows: The images; their own splits are ignored.
        classes: Class names.
        folds: Number of folds.
        val_fraction: Fraction of the images outside of a fold that validate.
        seed: Random seed of the folds and of the validation splits.
        multi_label: Whether labels are findings joined by "|".

    Raises:
        ValueError: There are fewer images (or groups) than folds, or a class has all its images in one fold, so that
            the fold's model would have none to learn it from.
    """
    rows = sorted(row._replace(split="") for row in rows)
    units = len({row.group or i for i, row in enumerate(rows)})
    if units < folds:
        what = "group" if any(row.group for row in rows) else "image"
        raise ValueError(f"folds must be at most {units}, the number of {what}s, got {folds}; give --folds {units}")
    targets = encode_labels([row.label for row in rows], classes, multi_label=multi_label)
    number = folds_of(targets, [row.group for row in rows], folds, seed).tolist()
    if not multi_label:
        _check_classes(rows, number)

    def divided(fold: int) -> list[Row]:
        marked = [row._replace(split="test" if at == fold else "train") for row, at in zip(rows, number, strict=True)]
        check_groups(marked)
        return assign_splits(
            marked, rate=100, val_fraction=val_fraction, test_fraction=0, seed=seed, multi_label=multi_label
        )

    return [divided(fold) for fold in (*range(folds), -1)]


def _check_classes(rows: Sequence[Row], number: Sequence[int]) -> None:
    places: dict[str, set[int]] = defaultdict(set)
    for row, fold in zip(rows, number, strict=True):
        places[row.label].add(fold)
    images = Counter(row.label for row in rows)
    single = [f"{name} ({count(images[name], 'image')})" for name, inside in places.items() if len(inside) == 1]
    if single:
        raise ValueError(
            f"{count(len(single), 'class')} would have all images in one fold: {some(single)}; a model must learn a "
            "class from other images (of other groups, such as patients): add some, or leave the class out"
        )
