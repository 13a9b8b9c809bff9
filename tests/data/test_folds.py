"""The division into folds."""

from __future__ import annotations

import pytest
import torch

from stochnorm.data import Row
from stochnorm.data.folds import fold_splits, folds_of


def rows_of(images: int, groups: int = 0) -> list[Row]:
    return [
        Row(f"{i:03d}.png", "abc"[i % 3], "test", f"patient {i // 3 % groups}" if groups else "") for i in range(images)
    ]


def test_folds_spread_classes_and_keep_groups() -> None:
    targets = torch.arange(4).repeat_interleave(10)
    folds = folds_of(targets, [""] * 40, 5, seed=0)
    for label in range(4):
        assert torch.bincount(folds[targets == label]).tolist() == [2] * 5
    groups = [f"patient {i // 2}" for i in range(40)]
    grouped = folds_of(targets, groups, 5, seed=0)
    assert torch.equal(grouped[::2], grouped[1::2])
    assert not torch.equal(folds, folds_of(targets, [""] * 40, 5, seed=1))


@pytest.mark.parametrize("groups", [0, 12])
def test_every_image_is_tested_once_and_groups_stay_together(groups: int) -> None:
    rows = rows_of(72, groups)
    *folds, final = fold_splits(rows, "abc", 4, val_fraction=0.25, seed=3, multi_label=False)
    tested = [row.path for fold in folds for row in fold if row.split == "test"]
    assert sorted(tested) == [row.path for row in rows]
    for fold in folds:
        assert {row.path for row in fold} == {row.path for row in rows}
        assert {row.split for row in fold} == {"train", "val", "test"}
        if groups:
            assert len({(row.group, row.split) for row in fold}) == groups
        else:
            assert sum(row.split == "val" for row in fold) == pytest.approx(54 / 4, abs=2)
    assert {row.split for row in final} == {"train", "val"}
    assert len(final) == 72


def test_a_class_that_a_fold_could_not_learn_is_refused() -> None:
    rows = [*rows_of(30), Row("one.png", "rare")]
    with pytest.raises(ValueError, match=r"1 class would have all images in one fold: rare \(1 image\); a model must"):
        fold_splits(rows, ("a", "b", "c", "rare"), 3, val_fraction=0.2, seed=0, multi_label=False)


def test_more_folds_than_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="folds must be at most 4, the number of groups, got 5; give --folds 4"):
        fold_splits(rows_of(30, 4), "abc", 5, val_fraction=0.2, seed=0, multi_label=False)
