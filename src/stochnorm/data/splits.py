"""The division into training, validation and test images: pure functions of the rows and a seed."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction

import torch

from stochnorm.data.manifest import Row, findings
from stochnorm.text import count, some

__all__ = ["assign_splits", "cut_per_class", "sample_per_class"]


def sample_per_class(labels: Sequence[str], rate: float, seed: int) -> list[int]:
    """Draw ceil(rate % of n_c) images of each class without replacement, and return their indices.

    This is the rule of the paper's released image lists. The sample of a smaller rate is part of that of a larger one.

    Args:
        labels: Class of each image.
        rate: Percentage in (0, 100].
        seed: Random seed. Each class has its own stream, so that adding a class changes no other.

    Returns:
        Sorted indices.

    Example:
        >>> len(sample_per_class(["a"] * 30 + ["b"] * 31, rate=15, seed=0))  # ceil(4.5) + ceil(4.65)
        10
    """
    if not 0 < rate <= 100:
        raise ValueError(f"rate must be a percentage in (0, 100], got {rate}")
    share = Fraction(str(rate)) / 100  # exact: 0.15 * 20 is 3, not 3.0000000000000004
    drawn = _permuted_classes(labels, "sample", seed)
    return sorted(i for indices in drawn for i in indices[: math.ceil(share * len(indices))])


def cut_per_class(labels: Sequence[str], fraction: float, seed: int, purpose: str) -> tuple[list[int], list[int]]:
    """Split indices in two, stratified: `fraction` of each class, rounded, is cut off.

    A class of two or more images has at least one on each side; a class of one image stays whole.

    Args:
        labels: Class of each image.
        fraction: Fraction to cut off.
        seed: Random seed.
        purpose: Name of the cut; each has its own random stream.

    Returns:
        Sorted indices of the kept and of the cut images.

    Example:
        >>> kept, cut = cut_per_class(["a"] * 5, fraction=0.2, seed=0, purpose="val")
        >>> len(kept), len(cut)
        (4, 1)
    """
    kept, cut = [], []
    for indices in _permuted_classes(labels, purpose, seed):
        n = min(max(1, math.floor(fraction * len(indices) + 0.5)), len(indices) - 1)
        cut += indices[:n]
        kept += indices[n:]
    return sorted(kept), sorted(cut)


def assign_splits(
    rows: Sequence[Row],
    *,
    rate: float,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    test_seed: int | None = None,
    multi_label: bool = False,
    pool_val: bool = False,
) -> list[Row]:
    """Assign each image to a split; images that are not sampled are dropped.

    1. Test: the source's own split, else `test_fraction` of each class (0: no test split).
    2. Sample: ceil(rate % of n_c) of the training images of each class; in a multi-label source ceil(rate % of n) of
       all.
    3. Validation: the source's own split, else `val_fraction` of the *sampled* images: at 15 % the labels of 15 % of
       the images are known, and validation uses some of them. (The paper takes 20 % of the training data and does
       not say whether before or after sampling.)

    If the rows have groups (such as patients), groups are counted and drawn instead of images: a group is never
    divided. In steps 1 and 3 a group of several classes, or a multi-label image, counts for its rarest class, so that
    the rarest finding has positives on both sides if two groups have it; this does not hold for commoner ones. In
    step 2 a multi-label source is sampled as a whole.

    Args:
        rows: The images.
        rate: Percentage in (0, 100].
        val_fraction: Fraction of the sampled training images held out for validation, if the source has no validation
            split; 0: none.
        test_fraction: Fraction of all images held out for the test, if the source has no test split.
        seed: Random seed of all draws.
        test_seed: Random seed of the test split instead; None: `seed`.
        multi_label: Whether labels are findings joined by "|".
        pool_val: Use the source's own validation images for training, and hold out others: the released lists of
            FGVC-Aircraft sample from train and val together.

    Raises:
        ValueError: The source's own splits divide a group; the message names it.
    """
    labelled = [
        row._replace(split="train" if not row.split or (pool_val and row.split == "val") else row.split) for row in rows
    ]
    check_groups(labelled)
    splits = {row.split for row in labelled}

    def cut(fraction: float, split: str, seed: int) -> None:
        units = _units(labelled)
        _, chosen = cut_per_class(_rarest_labels(labelled, units, multi_label), fraction, seed, split)
        for i in (i for unit in chosen for i in units[unit]):
            labelled[i] = labelled[i]._replace(split=split)

    if "test" not in splits and test_fraction > 0:
        cut(test_fraction, "test", seed if test_seed is None else test_seed)
    units = _units(labelled)
    strata = [""] * len(units) if multi_label else _rarest_labels(labelled, units, multi_label)
    sampled = sorted(i for unit in sample_per_class(strata, rate, seed) for i in units[unit])
    labelled = [labelled[i] for i in sampled] + [row for row in labelled if row.split != "train"]
    if "val" not in splits and val_fraction > 0:
        cut(val_fraction, "val", seed)
    return sorted(labelled)


def check_groups(rows: Sequence[Row]) -> None:
    """Raise ValueError if a group has images in two splits; the message names the first ones."""
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row.group].add(row.split)
    divided = [group for group, parts in splits.items() if group and len(parts) > 1]
    if divided:
        raise ValueError(
            f"images of {count(len(divided), 'group')} (such as a patient) are in two splits: {some(divided)}; a model "
            "would be tested on what it was trained on: put all images of a group in one split"
        )


def _units(rows: Sequence[Row]) -> list[list[int]]:
    """Return the indices of the training images that stay together: those of a group, or one without a group."""
    units: dict[object, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        if row.split == "train":
            units[row.group or i].append(i)
    return list(units.values())


def _rarest_labels(rows: Sequence[Row], units: Sequence[Sequence[int]], multi_label: bool) -> list[str]:
    """Return for each unit its class with the fewest units; "" for a unit without findings."""
    labels = [
        {n for i in unit for n in (findings(rows[i].label) if multi_label else [rows[i].label])} for unit in units
    ]
    counts = Counter(name for names in labels for name in names)
    return [min(names, key=lambda name: (counts[name], name), default="") for names in labels]


def _permuted_classes(labels: Sequence[str], purpose: str, seed: int) -> list[list[int]]:
    classes: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        classes[label].append(index)
    permuted = []
    for label, indices in sorted(classes.items()):
        order = torch.randperm(len(indices), generator=generator(purpose, seed, label)).tolist()
        permuted.append([indices[i] for i in order])
    return permuted


def generator(*key: object) -> torch.Generator:
    """Make a generator of the CPU whose stream depends on the key alone, on every machine and in every process."""
    return torch.Generator().manual_seed(derive_seed(*key))


def derive_seed(*key: object) -> int:
    """Return a 63-bit seed of objects with a stable `repr`."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1
