"""The bootstrap draws images or whole groups."""

from __future__ import annotations

import pytest
import torch

from stochnorm.evaluation.bootstrap import resampled


def test_a_resample_draws_as_many_images_as_there_are() -> None:
    counts = torch.cat(list(resampled(50, None, 230, seed=0)), dim=1)
    assert counts.shape == (50, 230)
    assert (counts.sum(0) == 50).all()
    assert counts.double().mean(1).sub(1).abs().max() < 0.3  # every image alike: a mean of 1, by 0.07
    assert torch.equal(counts, torch.cat(list(resampled(50, None, 230, seed=0)), dim=1))
    assert not torch.equal(counts, torch.cat(list(resampled(50, None, 230, seed=1)), dim=1))


def test_groups_are_drawn_whole_and_images_without_one_are_their_own() -> None:
    groups = ["a", "b", "", "a", "", "b", "b"]
    counts = torch.cat(list(resampled(7, groups, 40, seed=0)), dim=1)
    for name in "ab":
        members = counts[[i for i, group in enumerate(groups) if group == name]]
        assert (members == members[0]).all()
    assert (counts[[0, 1, 2, 4]].sum(0) == 4).all()  # four groups, drawn four times
    assert not torch.equal(counts[2], counts[4])
    with pytest.raises(ValueError, match="got 7 for 8 images"):
        next(resampled(8, groups, 1, seed=0))


def test_drawing_changes_no_global_random_state() -> None:
    before = torch.get_rng_state()
    next(resampled(5, None, 5, seed=0))
    assert torch.equal(torch.get_rng_state(), before)
