"""Backbones, heads and weight files."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from stochnorm import build_classifier, load_classifier
from stochnorm.data import Preprocessing, read_source
from stochnorm.models import save_classifier
from stochnorm.weights import bundled_state_dict, read_state_dict

CLASSES = ("a", "b", "c")
TINY = "test_resnet"


def imagenet_model() -> tuple[nn.Module, Preprocessing]:
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(bundled_state_dict(model), strict=True)
    return model.eval(), Preprocessing(160, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")


def test_bundled_weights_classify_a_real_photograph() -> None:
    model, preprocessing = imagenet_model()
    photograph = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"
    x = preprocessing.normalize(preprocessing.center_crop(preprocessing.read(photograph))[None])
    probabilities = model(x).softmax(1)[0]
    assert probabilities.argmax() == 652  # military uniform
    assert probabilities[652] > 0.5


def test_bundled_weights_classify_real_fruit(shared: Path) -> None:
    """Grocery photographs of what ImageNet has as a class; chance is 0.1 %."""
    imagenet = {"Granny-Smith": 948, "Orange": 950, "Lemon": 951, "Pineapple": 953, "Banana": 954, "Pomegranate": 957}
    model, preprocessing = imagenet_model()
    source = read_source(shared / "data/grocery")
    correct: Counter[str] = Counter()
    for name, index in imagenet.items():
        rows = [row for row in source.rows if row.label == name and row.split == "test"][:15]
        images = torch.stack([preprocessing.read(source.root / row.path) for row in rows])
        with torch.no_grad():
            predicted = model(preprocessing.normalize(preprocessing.center_crop(images))).argmax(1)
        correct.update({"all": len(rows), "right": int((predicted == index).sum())})
    assert correct["right"] > 0.5 * correct["all"]


def test_the_new_head_is_small_and_the_rest_is_pre_trained() -> None:
    pretrained = timm.create_model("tf_efficientnet_lite0")
    state = bundled_state_dict(pretrained)
    classifier = build_classifier("tf_efficientnet_lite0", "auto", CLASSES)
    for key, value in classifier.model.state_dict().items():
        if not key.startswith("classifier."):
            assert torch.equal(value, state[key]), key
    (head,) = classifier.head
    assert isinstance(head, nn.Linear)
    assert head.weight.shape == (3, 1280)
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not head.bias.any()


def test_the_head_learns_ten_times_as_fast_and_each_parameter_once() -> None:
    classifier = build_classifier(TINY, "random", CLASSES)
    backbone, head = classifier.parameter_groups(0.01, 10)
    assert (backbone["lr"], head["lr"]) == (0.01, pytest.approx(0.1))
    parameters = [*backbone["params"], *head["params"]]
    assert len({id(p) for p in parameters}) == len(parameters) == len(list(classifier.model.parameters()))
    assert len(head["params"]) == 2


def test_building_is_reproducible_and_leaves_the_generator_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (build_classifier(TINY, "random", CLASSES, seed=s).model.state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("torchvision/resnet18", 64),
        ("vgg11_bn", 64),
        ("torchvision/mobilenet_v3_small", 64),
        ("squeezenet1_1", 64),
        ("torchvision/inception_v3", 80),
        ("googlenet", 64),
        ("densenet121", 64),
        ("regnety_002", 64),
        ("levit_128s", 224),
        ("mobileone_s0", 64),
    ],
)
def test_backbones_of_both_libraries_train_a_new_head(backbone: str, size: int) -> None:
    classifier = build_classifier(backbone, "random", CLASSES, image_size=size)
    logits = classifier.model(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 3)
    logits.exp().sum().backward()
    assert all(p.grad is not None and p.grad.any() for module in classifier.head for p in module.parameters())


def test_a_name_of_both_libraries_is_timms_unless_said() -> None:
    assert not isinstance(build_classifier("resnet18", "random", CLASSES).model, torchvision.models.ResNet)
    assert isinstance(build_classifier("torchvision/resnet18", "random", CLASSES).model, torchvision.models.ResNet)


def test_preprocessing_is_the_backbones_own() -> None:
    lite, other = (
        build_classifier(name, "random", CLASSES).preprocessing for name in ("tf_efficientnet_lite0", "vgg11_bn")
    )
    assert (tuple(lite.mean), lite.interpolation) == ((0.5, 0.5, 0.5), "bicubic")
    assert tuple(other.mean) == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}])
def test_weight_files_load_without_their_head(tmp_path: Path, suffix: str, wrap: Any) -> None:
    state = timm.create_model(TINY, num_classes=7).state_dict()
    file = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(wrap(state), file)
    loaded = build_classifier(TINY, str(file), CLASSES).model.state_dict()
    assert loaded["fc.weight"].shape[0] == 3
    assert all(torch.equal(loaded[key], value) for key, value in state.items() if not key.startswith("fc."))


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def test_weight_files_are_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Payload()}, "bad.pth")
    with pytest.raises(ValueError, match=r"bad.pth: not a PyTorch file of tensors alone"):
        read_state_dict(Path("bad.pth"))
    assert not Path("executed").exists()


def test_bad_weight_files_are_named(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors does not fit test_resnet: of \d+ tensors, \d+ missing"):
        build_classifier(TINY, str(tmp_path / "other.safetensors"), CLASSES)
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(ValueError, match=rf"{name}: not a"):
            read_state_dict(tmp_path / name)
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"pickle.pth: "):
        read_state_dict(tmp_path / "pickle.pth")
    with pytest.raises(FileNotFoundError, match=r"missing.pth: no such weight file; --weights takes"):
        build_classifier(TINY, str(tmp_path / "missing.pth"), CLASSES)


def test_unknown_backbones_get_suggestions() -> None:
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet5o'.*did you mean resnet50"):
        build_classifier("resnet5o", "random", CLASSES)
    with pytest.raises(ValueError, match="bundled weights are tf_efficientnet_lite0's"):
        build_classifier("resnet18", "bundled", CLASSES)


def test_a_failed_download_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: Any, **options: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(OSError, match=r"could not get timm's pretrained weights of .*no route.*--weights FILE"):
        build_classifier("resnet18", "auto", CLASSES)


@pytest.mark.parametrize("backbone", [TINY, "torchvision/resnet18"])
def test_a_saved_model_is_complete(tmp_path: Path, backbone: str) -> None:
    from stochnorm import convert

    classifier = build_classifier(backbone, "random", ("x", "<b>", "ü"), image_size=64)
    convert(classifier.model)
    classifier.model(torch.randn(4, 3, 64, 64))
    save_classifier(tmp_path / "model.safetensors", classifier, {"norm": "stochnorm"})
    loaded = load_classifier(tmp_path)
    assert (loaded.classes, loaded.backbone) == (("x", "<b>", "ü"), backbone)
    assert json.dumps(loaded.preprocessing.as_dict()) == json.dumps(classifier.preprocessing.as_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded.model(x), classifier.model.eval()(x))
    assert not any("Stoch" in type(m).__name__ for m in loaded.model.modules())


def test_other_weight_files_are_no_models(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="without stochnorm's class names"):
        load_classifier(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such model; give a directory"):
        load_classifier(tmp_path / "nowhere")
