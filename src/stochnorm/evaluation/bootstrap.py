"""The bootstrap of metrics: images, or whole groups of them, drawn with replacement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["groups_with", "interval", "resampled"]

_AT_ONCE = 100  # resamples; bounds the memory


def resampled(n: int, groups: Sequence[str] | None, resamples: int, seed: int) -> Iterator[Tensor]:
    """Draw n images, or all groups, with replacement, and yield how often each image is drawn.

    Args:
        n: Number of images.
        groups: Group of each image, drawn with all its images; an image with an empty name is a group by itself. None:
            draw images.
        resamples: Number of resamples.
        seed: Random seed. The global generator is not used.

    Yields:
        (n, resamples), int32, for some of the resamples at a time.

    Raises:
        ValueError: There is not one group per image, or less than one resample.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    member = _members(n, groups)
    units = int(member.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, resamples, _AT_ONCE):
        drawn = torch.randint(units, (units, min(_AT_ONCE, resamples - start)), generator=generator)
        counts = torch.zeros_like(drawn, dtype=torch.int32)
        counts.scatter_add_(0, drawn, torch.ones_like(counts))
        yield counts[member]


def _members(n: int, groups: Sequence[str] | None) -> Tensor:
    """Return the number of each image's group, (n,) int64."""
    if groups is not None and len(groups) != n:
        raise ValueError(f"groups must have a name for each image, got {len(groups)} for {n} images")
    names = [name or i for i, name in enumerate(groups or [""] * n)]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([number[name] for name in names])


def groups_with(side: Tensor, groups: Sequence[str] | None) -> Tensor:
    """Count the groups that have an image on one side of each finding.

    Args:
        side: (n, findings), bool: the positive images, or the negative ones.
        groups: Group of each image, as for `resampled`.

    Returns:
        (findings,), int64.
    """
    member = _members(len(side), groups)
    images = torch.zeros(int(member.max()) + 1, side.size(1)).index_add(0, member, side.float())
    return (images > 0).sum(0)


def interval(values: Tensor) -> list[float] | None:
    """Return the bounds of 95 % of the resampled values, in percent; None if all are nan."""
    bounds: list[float] = values.nanquantile(values.new_tensor([0.025, 0.975])).mul(100).tolist()
    return None if values.isnan().all() else bounds
