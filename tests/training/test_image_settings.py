"""The settings of the images in whole runs: what is saved with the model is what evaluates it later."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps

from stochnorm import FinetuneConfig, evaluate, finetune, load_classifier, predict
from stochnorm.cli.main import main
from stochnorm.data import Preprocessing
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run

Configure = Callable[..., FinetuneConfig]
StopAt = Callable[[int, FinetuneConfig], None]
LIKE_THE_RUN: dict[str, Any] = {"batch_size": 8, "precision": "32", "device": "cpu"}


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_a_model_is_evaluated_as_its_run_did(photos: Path, tmp_path: Path, config: Configure, resize: str) -> None:
    settings = config(photos, tmp_path / "run", resize=resize, test_size=48, flip=True, augment="gentle")
    result = finetune(settings, quiet=True)
    preprocessing = load_classifier(result.run).preprocessing
    assert (preprocessing.fit, preprocessing.image_size, preprocessing.input_size) == (resize, 32, 48)
    assert preprocessing.flip
    again = evaluate(result.run, **LIKE_THE_RUN)
    assert result.test is not None
    assert again.metrics["loss"] == pytest.approx(result.test["loss"], rel=1e-5)
    rows = [*csv.DictReader(Run(result.run).predictions.read_text().splitlines())]
    predictions = predict(result.run, [photos / row["path"] for row in rows], device="cpu")
    for row, prediction in zip(rows, predictions, strict=True):
        for name, probability in prediction.probabilities.items():
            assert float(row[f"p({name})"]) == pytest.approx(probability, abs=2e-2)  # bfloat16 where it is fast


def test_crops_of_training_have_the_size_of_training(
    photos: Path, tmp_path: Path, config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = {True: set(), False: set()}  # type: dict[bool, set[int]]
    original = Preprocessing.normalize

    def spy(self: Preprocessing, images: torch.Tensor) -> torch.Tensor:
        sides[self.for_crops].add(images.size(-1))
        return original(self, images)

    monkeypatch.setattr(Preprocessing, "normalize", spy)
    finetune(config(photos, tmp_path / "run", resize="crop", test_size=48), quiet=True)
    assert sides == {True: {32}, False: {48}}


@pytest.mark.parametrize(
    "options",
    [
        {"augment": "trivial", "workers": 1},
        {"resize": "crop", "mixup": 0.3, "cutmix": 1.0},
        {"label_smoothing": 0.2},
        {"crop_scale": 0.9},
    ],
    ids=lambda options: "-".join(options),
)
def test_a_setting_changes_the_training_and_a_resumed_run_has_the_same_bits(
    photos: Path, tmp_path: Path, config: Configure, stop_at: StopAt, options: dict[str, Any]
) -> None:
    finetune(config(photos, tmp_path / "plain"), quiet=True)
    finetune(config(photos, tmp_path / "whole", **options), quiet=True)
    stop_at(5, config(photos, tmp_path / "parts", **options))
    finetune(config(photos, tmp_path / "parts", resume=True, **options | {"workers": 0}), quiet=True)
    plain, whole, parts = (read_state_dict(Run(tmp_path / name).model) for name in ("plain", "whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert not all(torch.equal(whole[key], plain[key]) for key in whole)


def test_the_mirror_image_counts_in_evaluation_if_asked(photos: Path, tmp_path: Path, config: Configure) -> None:
    """Logits are averaged, so an image and its mirror image have the same; without the option they have not."""
    # Of 64 pixels the middle 56: the same of the mirror image, as it is not of 37 and 32.
    run = finetune(config(photos, tmp_path / "run", steps=4, image_size=56), quiet=True).run
    with_flip, without = (evaluate(run, flip=flip, **LIKE_THE_RUN).metrics["loss"] for flip in (True, False))
    assert with_flip != without
    image = Image.linear_gradient("L").rotate(30).convert("RGB")
    image.paste((255, 0, 0), (0, 0, 120, 90))
    image.save(tmp_path / "here.png")
    ImageOps.mirror(image).save(tmp_path / "there.png")
    files = [tmp_path / "here.png", tmp_path / "there.png"]
    here, there = predict(run, files, flip=True, device="cpu")
    assert here.probabilities == pytest.approx(there.probabilities, abs=1e-3)
    main(["predict", str(run), str(files[0]), "--flip", "--csv", str(tmp_path / "one.csv")])
    (row,) = csv.DictReader((tmp_path / "one.csv").read_text().splitlines())
    assert float(row[f"p({here.label})"]) == pytest.approx(here.probability, abs=1e-2)
    here, there = predict(run, files, device="cpu")
    assert here.probabilities != there.probabilities


def rewritten(photos: Path) -> None:
    """Write each image again, in another mode and format, under the same name: the content decides."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, file in enumerate(sorted(photos.rglob("*.png"))):
        image = Image.open(file).convert("RGB")
        clear = image.convert("RGBA")
        clear.putalpha(Image.linear_gradient("L").resize(image.size))
        kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
            (clear, "PNG", {}),
            (image, "JPEG", {"exif": exif}),
            (image.convert("CMYK"), "JPEG", {}),
            (image.quantize(8), "GIF", {"transparency": 0}),
            (image.convert("L").convert("I").point(lambda value: value * 257), "TIFF", {}),
            (image.convert("L").convert("F").point(lambda value: value * (1 / 255) + 0), "TIFF", {}),
        ]
        shown, kind, options = kinds[number % len(kinds)]
        shown.save(file, kind, **options)


def test_all_commands_see_the_same_pixels(photos: Path, tmp_path: Path, config: Configure) -> None:
    """Validation and test in the run, `evaluate` and `predict`, on the center and on ten crops."""
    rewritten(photos)
    run = finetune(config(photos, tmp_path / "run", steps=4), quiet=True).run
    rows = list(csv.DictReader((Path(run) / "test_predictions.csv").read_text().splitlines()))
    files = [photos / row["path"] for row in rows]
    crops: dict[bool, list[list[float]]] = {}
    for ten_crop in (False, True):
        predicted = [list(p.probabilities.values()) for p in predict(run, files, ten_crop=ten_crop, device="cpu")]
        evaluated = evaluate(run, ten_crop=ten_crop, **LIKE_THE_RUN).probabilities
        torch.testing.assert_close(torch.tensor(predicted), torch.as_tensor(evaluated).float(), atol=0.02, rtol=0)
        crops[ten_crop] = predicted
    in_the_run = [[float(row[name]) for name in row if name.startswith("p(")] for row in rows]
    torch.testing.assert_close(torch.tensor(in_the_run), torch.tensor(crops[False]), atol=0.02, rtol=0)
    assert crops[True] != crops[False]
    main(["predict", str(run), str(files[0]), "--ten-crop", "--csv", str(tmp_path / "one.csv")])
    (row,) = csv.DictReader((tmp_path / "one.csv").read_text().splitlines())
    assert float(row["probability"]) == pytest.approx(max(crops[True][0]), abs=0.01)


def test_a_test_size_that_the_network_cannot_take_is_an_error_before_the_training(
    photos: Path, tmp_path: Path, config: Configure
) -> None:
    settings = config(
        photos, tmp_path / "run", method="vanilla", backbone="small/inception_v3", image_size=107, test_size=4
    )
    with pytest.raises(
        ValueError, match=r"^small/inception_v3 cannot take images of 4 px .*; choose another --test-size$"
    ):
        finetune(settings, quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_run_that_starts_from_another_run_has_its_own_image_settings(
    photos: Path, tmp_path: Path, config: Configure
) -> None:
    first = finetune(config(photos, tmp_path / "first", resize="pad", flip=True, steps=4), quiet=True)
    second = finetune(config(photos, tmp_path / "second", weights=str(first.run), steps=4), quiet=True)
    preprocessing = load_classifier(second.run).preprocessing
    assert (preprocessing.fit, preprocessing.flip) == ("squash", False)


def test_gentle_augmentation_has_larger_crops() -> None:
    assert FinetuneConfig("photos").crop_scale_used == 0.08
    assert FinetuneConfig("photos", augment="gentle").crop_scale_used == 0.5
    assert FinetuneConfig("photos", augment="gentle", crop_scale=0.3).crop_scale_used == 0.3
