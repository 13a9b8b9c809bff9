"""The groceries, which are installed with stochnorm."""

from __future__ import annotations

from collections import Counter

from PIL import Image

from stochnorm.data import read_source, verify
from stochnorm.data.published.groceries import demo_images


def test_each_kind_has_18_training_and_10_test_images() -> None:
    source = read_source("groceries")
    assert len(source.classes) == 12
    per_kind = Counter((row.label, row.split) for row in source.rows)
    assert per_kind == {(kind, split): n for kind in source.classes for split, n in (("train", 18), ("test", 10))}
    assert verify("groceries").ok


def test_the_images_are_small_and_differ() -> None:
    files = sorted(demo_images().rglob("*.jpg"))
    assert sum(file.stat().st_size for file in files) < 2_000_000
    assert len({file.read_bytes() for file in files}) == len(files) == 336
    for file in files[::30]:
        with Image.open(file) as image:
            assert min(image.size) == 144


def test_the_licence_is_beside_them() -> None:
    assert "Copyright (c) Marcus Klasson" in (demo_images() / "LICENSE").read_text()
    assert "WACV 2019" in (demo_images() / "README.md").read_text()
