"""Class names as numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stochnorm.data.manifest import findings
from stochnorm.text import some

__all__ = ["encode_labels"]


def encode_labels(labels: Sequence[str], classes: Sequence[str], *, multi_label: bool = False) -> Tensor:
    """Encode the labels of images as class numbers.

    Args:
        labels: One label per image; with several labels per image, the findings joined by "|".
        classes: Class names in the order of the numbers.
        multi_label: Whether an image has any number of classes instead of one.

    Returns:
        (n,) int64, the place of each label in `classes`; with `multi_label` (n, c) float32, 1 for each finding.

    Raises:
        ValueError: A label is not among `classes`.

    Example:
        >>> encode_labels(["b", "a"], ["a", "b"])
        tensor([1, 0])
        >>> encode_labels(["a|b", ""], ["a", "b"], multi_label=True)
        tensor([[1., 1.],
                [0., 0.]])
    """
    index = {name: i for i, name in enumerate(classes)}
    names = [findings(label) if multi_label else [label] for label in labels]
    unknown = sorted({name for image in names for name in image} - index.keys())
    if unknown:
        raise ValueError(f"unknown classes {some(unknown)}; the classes are {some(list(classes))}")
    if not multi_label:
        return torch.tensor([index[label] for label in labels], dtype=torch.int64)
    targets = torch.zeros(len(labels), len(classes))
    for row, image in zip(targets, names, strict=True):
        row[[index[name] for name in image]] = 1
    return targets
