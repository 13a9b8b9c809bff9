"""Sampling and splitting."""

from __future__ import annotations

import csv
import math
from collections import Counter
from pathlib import Path

import pytest

from stochnorm.data import Row, assign_splits
from stochnorm.data.splits import cut_per_class, sample_per_class


@pytest.mark.parametrize(("rate", "total"), [(15, 1000), (30, 1800), (50, 3000), (100, 5994)])
def test_published_sizes_of_cub_200(shared: Path, rate: float, total: int) -> None:
    folder = shared / "data/annotations/CUB_200_2011"
    train = [
        line.split()[0] for line in (folder / "train_test_split.txt").read_text().splitlines() if line.endswith("1")
    ]
    labels = dict(line.split() for line in (folder / "image_class_labels.txt").read_text().splitlines())
    classes = [labels[i] for i in train]
    chosen = sample_per_class(classes, rate, seed=0)
    assert len(chosen) == total
    counts, all_counts = Counter(classes[i] for i in chosen), Counter(classes)
    assert all(counts[c] == math.ceil(rate * n / 100) for c, n in all_counts.items())


def test_the_rate_is_exact() -> None:
    assert len(sample_per_class(["a"] * 20, rate=15, seed=0)) == 3  # 0.15 * 20 in floating point is above 3


def test_smaller_samples_are_part_of_larger_ones_and_seeds_differ() -> None:
    labels = [str(i % 7) for i in range(200)]
    small, large, other = (set(sample_per_class(labels, r, s)) for r, s in ((15, 0), (30, 0), (15, 1)))
    assert small < large
    assert small != other


def test_a_further_class_changes_no_other() -> None:
    labels = ["a"] * 20 + ["b"] * 20
    assert sample_per_class(labels, 25, 0) == sample_per_class([*labels, *["c"] * 9], 25, 0)[:10]


@pytest.mark.parametrize(("count", "cut"), [(1, 0), (2, 1), (4, 1), (5, 1), (8, 2), (100, 20)])
def test_the_cut_is_a_fifth_of_each_class_and_leaves_some(count: int, cut: int) -> None:
    kept, taken = cut_per_class(["a"] * count + ["b"] * 10, 0.2, seed=0, purpose="val")
    assert sum(i < count for i in taken) == cut
    assert sorted(kept + taken) == list(range(count + 10))


def rows(split: str, count: int) -> list[Row]:
    return [Row(f"{split}{label}{i}.png", label, split) for label in "ab" for i in range(count)]


def counts(rows: list[Row]) -> dict[tuple[str, str], int]:
    return dict(Counter((row.split, row.label) for row in rows))


def test_the_sources_own_splits_stay_and_only_training_is_sampled() -> None:
    given = rows("train", 20) + rows("val", 7) + rows("test", 9)
    assigned = assign_splits(given, rate=15, val_fraction=0.2, test_fraction=0.2, seed=0)
    assert counts(assigned) == {(s, c): n for s, n in (("train", 3), ("val", 7), ("test", 9)) for c in "ab"}


def test_without_splits_test_is_cut_first_and_validation_paid_from_the_sample() -> None:
    assigned = assign_splits(rows("", 50), rate=50, val_fraction=0.2, test_fraction=0.2, seed=0)
    # of 50: 10 test; 50 % of the other 40 are 20; a fifth of those validate
    assert counts(assigned) == {(s, c): n for s, n in (("train", 16), ("val", 4), ("test", 10)) for c in "ab"}
    more = assign_splits(rows("", 50), rate=100, val_fraction=0.2, test_fraction=0.2, seed=0)
    assert {r for r in assigned if r.split == "test"} == {r for r in more if r.split == "test"}


def test_no_test_fraction_no_test() -> None:
    assigned = assign_splits(rows("", 10), rate=100, val_fraction=0.2, test_fraction=0, seed=0)
    assert counts(assigned) == {(s, c): n for s, n in (("train", 8), ("val", 2)) for c in "ab"}


@pytest.mark.parametrize("rate", [0, -1, 101])
def test_a_rate_that_is_no_percentage_is_an_error(rate: float) -> None:
    with pytest.raises(ValueError, match=r"percentage in \(0, 100\]"):
        sample_per_class(["a"], rate, seed=0)


def test_grocery_manifest_is_read_as_it_stands(shared: Path) -> None:
    from stochnorm.data import read_source

    by_manifest, by_folder = (read_source(shared / "data/grocery" / name) for name in ("manifest.csv", ""))
    assert sorted(by_manifest.rows) == sorted(by_folder.rows)
    with (shared / "data/grocery/manifest.csv").open() as file:
        assert len(by_manifest.rows) == sum(1 for _ in csv.reader(file)) - 1
    assert Counter(row.split for row in by_folder.rows) == {"train": 2640, "val": 296, "test": 2485}
