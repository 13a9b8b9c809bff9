"""Sampling and splitting."""

from __future__ import annotations

import csv
import math
from collections import Counter
from pathlib import Path

import pytest

from stochnorm.data import Row, assign_splits
from stochnorm.data.published.cars import list_cars
from stochnorm.data.published.chestxray14 import list_chestxray14
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


def test_the_grocery_manifest_is_read_unchanged(shared: Path) -> None:
    from stochnorm.data import read_source

    by_manifest, by_folder = (read_source(shared / "data/grocery" / name) for name in ("manifest.csv", ""))
    assert sorted(by_manifest.rows) == sorted(by_folder.rows)
    with (shared / "data/grocery/manifest.csv").open() as file:
        assert len(by_manifest.rows) == sum(1 for _ in csv.reader(file)) - 1
    assert Counter(row.split for row in by_folder.rows) == {"train": 2640, "val": 296, "test": 2485}


@pytest.mark.parametrize(("rate", "total"), [(15, 1310), (30, 2531), (50, 4123)])
def test_published_sizes_of_stanford_cars(shared: Path, rate: float, total: int) -> None:
    train = list_cars(shared / "data/annotations/Stanford_Cars").rows
    assert len(sample_per_class([row.label for row in train], rate, seed=0)) == total


@pytest.mark.parametrize(("rate", "total"), [(15, 1067), (30, 2067), (50, 3367)])
def test_published_sizes_of_aircraft_come_from_train_and_val_together(rate: float, total: int) -> None:
    # 6,667 images of 100 variants, 66 or 67 of each, halved
    given = [
        Row(f"{split}{c}-{i}.jpg", str(c), split)
        for c in range(100)
        for split, n in (("train", 34 if c < 34 else 33), ("val", 33 if c < 34 or c >= 67 else 34), ("test", 33))
        for i in range(n)
    ]
    assert Counter(row.split for row in given) == {"train": 3334, "val": 3333, "test": 3300}
    assigned = assign_splits(given, rate=rate, val_fraction=0.2, test_fraction=0.2, seed=0, pool_val=True)
    parts = Counter(row.split for row in assigned)
    assert parts["train"] + parts["val"] == total
    assert parts["val"] == pytest.approx(total / 5, abs=50)


def patients(count: int, *, multi_label: bool) -> list[Row]:
    labels = ["", "Effusion", "Mass|Effusion", "Hernia"] if multi_label else ["a", "b", "c", "c"]
    return [
        Row(f"{p:03d}-{i}.png", labels[(p + i) % 4] if p % 10 or not multi_label else "Effusion", "", f"patient {p}")
        for p in range(count)
        for i in range(p % 3 + 1)
    ]


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("rate", [5, 15, 100])
def test_no_patient_is_in_two_splits_and_none_loses_an_image(multi_label: bool, rate: float) -> None:
    given = patients(200, multi_label=multi_label)
    assigned = assign_splits(given, rate=rate, val_fraction=0.2, test_fraction=0.2, seed=3, multi_label=multi_label)
    parts = {split: {row.group for row in assigned if row.split == split} for split in ("train", "val", "test")}
    assert sum(len(groups) for groups in parts.values()) == len(set.union(*parts.values()))
    whole, kept = (Counter(row.group for row in some_rows) for some_rows in (given, assigned))
    assert all(whole[group] == n for group, n in kept.items())
    assert len(parts["test"]) == pytest.approx(40, abs=2)


@pytest.mark.parametrize("rate", [5, 10, 15])
def test_the_rate_counts_patients_of_a_multi_label_source(rate: float) -> None:
    given = [row._replace(split="train") for row in patients(190, multi_label=True)]
    given += [Row("test.png", "Mass", "test", "patient 999")]
    assigned = assign_splits(given, rate=rate, val_fraction=0.2, test_fraction=0.2, seed=0, multi_label=True)
    assert len({row.group for row in assigned if row.split != "test"}) == math.ceil(rate * 190 / 100)


def test_the_official_training_part_of_nih_is_sampled_by_patient(shared: Path) -> None:
    source = list_chestxray14(shared / "data/annotations/NIH_ChestXray14")
    training = {row.group for row in source.rows if row.split == "train"}
    assigned = assign_splits(source.rows, rate=5, val_fraction=0.2, test_fraction=0.2, seed=0, multi_label=True)
    parts = {split: {row.group for row in assigned if row.split == split} for split in ("train", "val", "test")}
    assert len(parts["train"] | parts["val"]) == math.ceil(0.05 * len(training))
    assert not parts["train"] & parts["val"]
    assert sum(row.split == "test" for row in assigned) == 25596


def test_the_rarest_finding_is_on_both_sides_of_every_cut() -> None:
    given = [Row(f"{i}.png", "Effusion", "", str(i)) for i in range(60)]
    given += [Row(f"h{i}.png", "Effusion|Hernia", "", f"h{i}") for i in range(3)]
    for seed in range(5):
        assigned = assign_splits(given, rate=100, val_fraction=0.2, test_fraction=0.2, seed=seed, multi_label=True)
        hernia = Counter(row.split for row in assigned if "Hernia" in row.label)
        assert hernia == {"train": 1, "val": 1, "test": 1}


def test_images_without_groups_are_drawn_as_before_groups_were_known() -> None:
    plain = assign_splits(rows("", 50), rate=30, val_fraction=0.2, test_fraction=0.2, seed=1)
    own = [row._replace(group=row.path) for row in rows("", 50)]  # a group of each image's own
    grouped = assign_splits(own, rate=30, val_fraction=0.2, test_fraction=0.2, seed=1)
    assert [row._replace(group="") for row in grouped] == plain


def test_a_group_that_the_source_divides_is_an_error() -> None:
    given = [Row("1.png", "a", "train", "patient 7"), Row("2.png", "a", "test", "patient 7")]
    with pytest.raises(ValueError, match=r"images of 1 group .* are in two splits: patient 7; .*in one split"):
        assign_splits(given, rate=100, val_fraction=0.2, test_fraction=0.2, seed=0)
