"""Saved classifiers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stochnorm import build_classifier, convert, load_classifier
from stochnorm.data import Preprocessing
from stochnorm.models import save_classifier
from stochnorm.nn import BatchInstanceNorm2d, convert_batch_instance

TINY = "test_resnet"


@pytest.mark.parametrize("backbone", [TINY, "torchvision/resnet50", "squeezenet1_1"])
def test_a_saved_model_is_complete(tmp_path: Path, backbone: str) -> None:
    classifier = build_classifier(backbone, "random", ("x", "<b>", "ü"), image_size=64, multi_label=True)
    classifier.weights = "elsewhere.pth"
    if backbone != "squeezenet1_1":
        convert(classifier.model)
    classifier.model(torch.randn(4, 3, 64, 64))
    save_classifier(tmp_path / "model.safetensors", classifier, {"norm": "stochnorm"})
    loaded = load_classifier(tmp_path)
    assert (loaded.classes, loaded.backbone, loaded.weights) == (("x", "<b>", "ü"), backbone, "elsewhere.pth")
    assert loaded.multi_label is True
    assert json.dumps(loaded.preprocessing.as_dict()) == json.dumps(classifier.preprocessing.as_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded.model(x), classifier.model.eval()(x))
    assert not any("Stoch" in type(m).__name__ for m in loaded.model.modules())


def test_auxiliary_classifiers_are_saved_to_train_on_and_loaded_without(tmp_path: Path) -> None:
    classifier = build_classifier("torchvision/inception_v3", "random", ("a", "b"))
    classifier.model(torch.randn(2, 3, 299, 299))
    file = tmp_path / "model.safetensors"
    save_classifier(file, classifier, {})
    loaded = load_classifier(file)
    x = torch.randn(1, 3, 299, 299)
    assert torch.equal(loaded.model(x), classifier.model.eval()(x))
    assert loaded.auxiliary_heads == []
    assert not any(key.startswith("AuxLogits") for key in loaded.model.state_dict())
    state = load_file(file)
    again = build_classifier("torchvision/inception_v3", str(file), ("c", "d", "e")).model.state_dict()
    assert torch.equal(again["AuxLogits.conv0.conv.weight"], state["AuxLogits.conv0.conv.weight"])

    # Files of version 0.1 had neither auxiliary classifiers nor multi_label.
    with safe_open(file, "pt") as content:
        about = json.loads(content.metadata()["stochnorm"])
    del about["multi_label"], about["digest"]
    old = {key: value for key, value in state.items() if not key.startswith("AuxLogits")}
    save_file(old, file, metadata={"stochnorm": json.dumps(about)})
    loaded = load_classifier(file)
    assert torch.equal(loaded.model(x), classifier.model(x))
    assert loaded.multi_label is False


def test_the_preprocessing_of_a_saved_model_comes_with_it(tmp_path: Path) -> None:
    """As weights for another run, in place of the settings of the backbone."""
    classifier = build_classifier(TINY, "random", ("a", "b"), image_size=96)
    classifier.preprocessing = Preprocessing(96, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")
    save_classifier(tmp_path / "model.safetensors", classifier, {})
    again = build_classifier(TINY, str(tmp_path), ("c", "d", "e"))  # a run's directory
    assert again.preprocessing.as_dict() == classifier.preprocessing.as_dict() | {
        "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]
    }  # fmt: skip
    larger = build_classifier(TINY, str(tmp_path / "model.safetensors"), ("c", "d"), image_size=128).preprocessing
    assert (larger.image_size, list(larger.mean)) == (128, [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match=f"model.safetensors is a model of {TINY}; use --backbone {TINY}"):
        build_classifier("resnet18", str(tmp_path), ("c", "d"))
    convert_batch_instance(classifier.model)
    save_classifier(tmp_path / "model.safetensors", classifier, {})
    with pytest.raises(ValueError, match=r"model.safetensors has Batch-Instance Normalization, .* another method"):
        build_classifier(TINY, str(tmp_path), ("c", "d"))


def test_batch_instance_normalization_is_saved_and_loaded(tmp_path: Path) -> None:
    classifier = build_classifier(TINY, "random", ("a", "b"), image_size=64)
    convert_batch_instance(classifier.model, where=lambda name, _: name.startswith("layer"))
    layers = [layer for layer in classifier.model.modules() if isinstance(layer, BatchInstanceNorm2d)]
    for i, layer in enumerate(layers):
        layer.rho.data.fill_(1 / (i + 2))
    save_classifier(tmp_path / "model.safetensors", classifier, {})
    loaded = load_classifier(tmp_path)
    assert sum(isinstance(layer, BatchInstanceNorm2d) for layer in loaded.model.modules()) == len(layers) > 0
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded.model(x), classifier.model.eval()(x))


def test_other_files_are_not_models(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"without class names; use a run"):
        load_classifier(tmp_path)
    save_file({"a": torch.zeros(1)}, file, metadata={"stochnorm": '{"backbone": "resnet18"}'})
    with pytest.raises(ValueError, match=r"saved by another version of stochnorm \('preprocessing'\)"):
        load_classifier(tmp_path)
    save_file({"a": torch.zeros(1)}, file, metadata={"stochnorm": "{"})
    with pytest.raises(ValueError, match=r"not a model saved by stochnorm, or damaged"):
        load_classifier(tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(
        ValueError, match=r"x.pth: not a model saved by stochnorm.*for a file of weights alone use --weights"
    ):
        load_classifier(tmp_path / "x.pth")
    with pytest.raises(FileNotFoundError, match=r"no such model; choose a run directory"):
        load_classifier(tmp_path / "nowhere")


def test_a_truncated_model_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_classifier(file, build_classifier(TINY, "random", ("a", "b")), {})
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"not a model saved by stochnorm, or damaged"):
        load_classifier(file)
