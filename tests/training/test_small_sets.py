"""Sets with few images, or few of a class: they train, and what is doubtful is said."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from stochnorm import FinetuneConfig, finetune
from stochnorm.data import Row, format_manifest

WriteImages = Callable[..., list[Path]]


def test_two_classes_of_three_images_train_with_the_default_batch(
    tmp_path: Path, write_images: WriteImages, config: Callable[..., FinetuneConfig]
) -> None:
    for name, color in (("a", (200, 40, 40)), ("b", (40, 200, 40))):
        write_images(tmp_path / "photos" / name, 3, color)
    settings = config(tmp_path / "photos", tmp_path / "run", batch_size=FinetuneConfig.batch_size, steps=2)
    with pytest.warns(UserWarning, match="batch_size is 2 instead of 32: there are only 2 training images"):
        result = finetune(settings, quiet=True)
    assert result.record["images"] == {"train": 2, "val": 2, "test": 2}


@pytest.mark.parametrize("balance", [False, True])
def test_a_class_of_few_images_is_told_unless_it_is_balanced(
    balance: bool, tmp_path: Path, write_images: WriteImages, config: Callable[..., FinetuneConfig]
) -> None:  # fmt: skip
    write_images(tmp_path / "photos/many", 60, (200, 40, 40))
    write_images(tmp_path / "photos/few", 3, (40, 200, 40))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finetune(config(tmp_path / "photos", tmp_path / "run", steps=1, balance=balance), quiet=True)
    said = [str(warning.message) for warning in caught]
    assert any("class many has 38 training images and few 1; --balance gives" in text for text in said) != balance


def test_a_class_without_validation_images_is_named(
    photos: Path, config: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    rows = [
        Row(path.relative_to(photos).as_posix(), path.parent.name,
            "train" if path.stem < "007" or path.parent.name == "red" else "val" if path.stem < "009" else "test")
        for path in sorted(photos.glob("*/*.png"))
    ]  # fmt: skip
    (photos / "list.csv").write_text(format_manifest(rows))
    with pytest.warns(UserWarning, match="no validation image of 1 class, whose mistakes .* sees: red; add"):
        finetune(config(photos / "list.csv", tmp_path / "run", steps=1), quiet=True)


@pytest.mark.parametrize("size", [1, 16, 31])
def test_images_smaller_than_what_networks_halve_away_are_refused(
    photos: Path, tmp_path: Path, config: Callable[..., FinetuneConfig], size: int
) -> None:
    with pytest.raises(ValueError, match=f"image_size {size} leaves nothing of an image, .* give --image-size 32"):
        finetune(config(photos, tmp_path / "run", image_size=size), quiet=True)
    assert not (tmp_path / "run").exists()
