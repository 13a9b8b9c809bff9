"""Predictions and scores of images as Python has them are those of their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stochnorm.data.images.pictures import square
from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.evaluation.evaluate import evaluate
from stochnorm.evaluation.predict import predict
from stochnorm.models import build_classifier, load_classifier, save_classifier


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    classifier = build_classifier("test_resnet", "random", ("blue", "green", "red"), image_size=32)
    save_classifier(path, classifier, {})
    return path


def test_an_image_is_predicted_alike_as_a_file_an_image_an_array_and_a_tensor(model: Path, photos: Path) -> None:
    file = photos / "red/000.png"
    pixels = np.asarray(Image.open(file))
    forms = [str(file), file, Image.open(file), pixels, torch.from_numpy(pixels.copy()).movedim(-1, 0)]
    predictions = predict(model, forms)
    assert len({tuple(each.probabilities.values()) for each in predictions}) == 1
    assert [each.path for each in predictions] == [file, file, file, None, None]
    for form in forms:
        assert predict(model, form)[0].label == predictions[0].label
    assert "probabilities" not in repr(predictions[0])


def test_a_loaded_model_is_a_module_whose_logits_are_those_of_predict(model: Path, photos: Path) -> None:
    classifier = load_classifier(model)
    assert isinstance(classifier, torch.nn.Module)
    assert set(classifier.state_dict()) == {f"model.{name}" for name in classifier.model.state_dict()}
    files = sorted(photos.rglob("*.png"))[:3]
    with torch.no_grad():
        probabilities = classifier(classifier.preprocess(files)).softmax(1)
        assert torch.equal(
            classifier(classifier.preprocess(files[0])), classifier.model(classifier.preprocess(files[0]))
        )
    expected = [list(each.probabilities.values()) for each in predict(classifier, files, device="cpu")]
    torch.testing.assert_close(probabilities, torch.tensor(expected), atol=0.02, rtol=0)  # bfloat16 on some processors
    assert not classifier.train().eval().model.training


def test_labelled_images_in_memory_have_the_scores_of_their_folder(model: Path, photos: Path) -> None:
    folder = evaluate(model, photos, precision="32")
    images = [Image.open(photos / path) for path in folder.paths]
    listed = evaluate(load_classifier(model), images, labels=folder.truth, precision="32")
    assert listed.metrics.keys() == folder.metrics.keys()
    assert listed.metrics["top1"] == folder.metrics["top1"]
    assert listed.metrics["loss"] == pytest.approx(folder.metrics["loss"], rel=1e-4)
    assert listed.predicted == folder.predicted
    with pytest.raises(ValueError, match="images in a list need one label each, got 30 images and none labels"):
        evaluate(model, images)
    with pytest.raises(ValueError, match="unknown classes pink; the model has blue, green, red"):
        evaluate(model, images[:1], labels=["pink"])
    with pytest.raises(ValueError, match="a loaded model has no test images"):
        evaluate(load_classifier(model))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 4, 3)), r"must be uint8 of shape .*, got float64 \(4, 4, 3\); scale them to 0 to 255"),
        (np.zeros((3, 8, 8), np.uint8), r"got uint8 \(3, 8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), r"got uint8 \(0, 8, 3\)"),
    ],
)
def test_pixels_of_another_kind_are_refused(pixels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        square(pixels, Preprocessing(32))


def test_grey_and_transparent_pixels_are_read_as_files_of_them_are(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    clear = np.dstack([grey, grey, grey, grey])
    for pixels in (grey, grey[..., None], clear):
        Image.fromarray(pixels.squeeze()).save(tmp_path / "file.png")
        assert torch.equal(square(pixels, Preprocessing(8)), square(tmp_path / "file.png", Preprocessing(8)))
    with pytest.raises(TypeError, match="an image must be a path, a PIL image, an array or a tensor, got int"):
        square(3, Preprocessing(8))  # type: ignore[arg-type]
