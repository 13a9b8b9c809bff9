"""Which images train, validate and test: pure functions of the rows and a seed."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

import torch

from stochnorm.data.manifest import Row

__all__ = ["assign_splits", "cut_per_class", "sample_per_class"]


def sample_per_class(labels: Sequence[str], rate: float, seed: int) -> list[int]:
    """Indices of ceil(rate % of n_c) images of each class, drawn without replacement.

    The rule of the paper's released image lists. A smaller rate's sample is part of a larger one's.

    Args:
        labels: The class of each image.
        rate: Percent, in (0, 100].
        seed: Of the draw; each class has its own stream, so that adding a class changes no other.

    Returns:
        Sorted indices.

    Example:
        >>> len(sample_per_class(["a"] * 30 + ["b"] * 31, rate=15, seed=0))  # ceil(4.5) + ceil(4.65)
        10
    """
    if not 0 < rate <= 100:
        raise ValueError(f"rate is a percentage in (0, 100], got {rate}")
    share = Fraction(str(rate)) / 100  # exact: 0.15 * 20 is 3, not 3.0000000000000004
    drawn = _permuted_classes(labels, "sample", seed)
    return sorted(i for indices in drawn for i in indices[: math.ceil(share * len(indices))])


def cut_per_class(labels: Sequence[str], fraction: float, seed: int, purpose: str) -> tuple[list[int], list[int]]:
    """Split indices in two, stratified: the share ``fraction`` of each class, rounded, is cut off.

    Of a class of two or more images at least one goes to each side; a class of one stays whole.

    Returns:
        ``(kept, cut)``, sorted.

    Example:
        >>> kept, cut = cut_per_class(["a"] * 5, fraction=0.2, seed=0, purpose="val")
        >>> len(kept), len(cut)
        (4, 1)
    """
    kept, cut = [], []
    for indices in _permuted_classes(labels, purpose, seed):
        count = min(max(1, math.floor(fraction * len(indices) + 0.5)), len(indices) - 1)
        cut += indices[:count]
        kept += indices[count:]
    return sorted(kept), sorted(cut)


def assign_splits(
    rows: Sequence[Row], *, rate: float, val_fraction: float, test_fraction: float, seed: int
) -> list[Row]:
    """Give every image its split; images that the rate leaves out are dropped.

    1. Test: as the source says, else ``test_fraction`` of each class (0: no test split).
    2. Sample: ceil(rate % of n_c) of each class's training images.
    3. Validation: as the source says, else ``val_fraction`` of the *sampled* images: at 15 % the labels of 15 % of
       the images are known, and validation is paid out of them. (The paper takes 20 % of the training data and does
       not say whether before or after sampling.)
    """
    labelled = [row._replace(split=row.split or "train") for row in rows]
    splits = {row.split for row in labelled}

    def cut(fraction: float, split: str) -> None:
        train = [i for i, row in enumerate(labelled) if row.split == "train"]
        _, chosen = cut_per_class([labelled[i].label for i in train], fraction, seed, split)
        for i in chosen:
            labelled[train[i]] = labelled[train[i]]._replace(split=split)

    if "test" not in splits and test_fraction > 0:
        cut(test_fraction, "test")
    train = [row for row in labelled if row.split == "train"]
    sampled = [train[i] for i in sample_per_class([row.label for row in train], rate, seed)]
    labelled = sampled + [row for row in labelled if row.split != "train"]
    if "val" not in splits:
        cut(val_fraction, "val")
    return sorted(labelled)


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
    """A generator whose stream depends on the key alone, the same on every machine and in every process."""
    return torch.Generator().manual_seed(derive_seed(*key))


def derive_seed(*key: object) -> int:
    """A 63-bit seed from anything with a stable ``repr``."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1
