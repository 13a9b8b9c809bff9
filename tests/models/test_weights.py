"""Weight files: what is read, how it is fitted to a model, what is refused."""

from __future__ import annotations

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
from torch import Tensor, nn

from stochnorm import build_classifier
from stochnorm.data import Preprocessing, read_source
from stochnorm.models.weights import bundled_state_dict, read_state_dict

CLASSES = ("a", "b", "c")
TINY = "test_resnet"


def imagenet_model() -> tuple[nn.Module, Preprocessing]:
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(bundled_state_dict(model), strict=True)
    return model.eval(), Preprocessing(160, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")


def tiny_weights() -> dict[str, Tensor]:
    return timm.create_model(TINY, num_classes=7).state_dict()


def assert_loaded(file: Path, state: dict[str, Tensor]) -> None:
    loaded = build_classifier(TINY, str(file), CLASSES).model.state_dict()
    assert loaded["fc.weight"].shape[0] == 3
    assert all(torch.equal(loaded[key], value) for key, value in state.items() if not key.startswith("fc."))


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


def test_weight_files_load_without_their_head(tmp_path: Path) -> None:
    state = tiny_weights()
    save_file(state, tmp_path / "weights.safetensors")
    assert_loaded(tmp_path / "weights.safetensors", state)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "weights.pth")
    assert_loaded(tmp_path / "weights.pth", state)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "encoder.", "module.pre."])
@pytest.mark.parametrize("headless", [False, True])
def test_prefixes_and_missing_heads_are_no_hindrance(tmp_path: Path, prefix: str, headless: bool) -> None:
    state = {key: value for key, value in tiny_weights().items() if not (headless and key.startswith("fc."))}
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "weights.pth")
    assert_loaded(tmp_path / "weights.pth", state)


def test_another_network_next_to_the_prefixed_one_is_ignored(tmp_path: Path) -> None:
    state = tiny_weights()
    file = {f"student.{key}": value for key, value in state.items()} | {"projector.0.weight": torch.zeros(2, 2)}
    torch.save(file, tmp_path / "weights.pth")
    assert_loaded(tmp_path / "weights.pth", state)


def test_two_networks_that_fit_are_a_question(tmp_path: Path) -> None:
    torch.save(
        {f"{name}.{key}": value for name in ("encoder_q", "encoder_k") for key, value in tiny_weights().items()},
        tmp_path / "weights.pth",
    )
    with pytest.raises(ValueError, match=r"has 2 networks that fit test_resnet, under encoder_q. and encoder_k.;"):
        build_classifier(TINY, str(tmp_path / "weights.pth"), CLASSES)


def test_a_prefix_does_not_hide_that_a_layer_is_missing(tmp_path: Path) -> None:
    state = {f"backbone.{key}": value for key, value in tiny_weights().items() if not key.startswith("layer2.")}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"does not fit test_resnet: of \d+ tensors, \d+ missing .*\d+ left over"):
        build_classifier(TINY, str(tmp_path / "weights.pth"), CLASSES)


def test_left_over_tensors_are_an_error(tmp_path: Path) -> None:
    torch.save(tiny_weights() | {"layer9.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"1 left over \(layer9.weight\)"):
        build_classifier(TINY, str(tmp_path / "weights.pth"), CLASSES)


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("in_model", [False, True])
def test_auxiliary_classifiers_may_be_in_the_file_or_not(tmp_path: Path, in_file: bool, in_model: bool) -> None:
    state = torchvision.models.googlenet(weights=None, aux_logits=in_file, init_weights=False).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    loaded = build_classifier(
        "googlenet", str(tmp_path / "weights.pth"), CLASSES, image_size=64, auxiliary=in_model
    ).model.state_dict()
    assert ("aux1.fc1.weight" in loaded) is in_model
    new = ("fc.", "aux1.fc2.", "aux2.fc2.")
    both = [key for key in state if key in loaded and not key.startswith(new)]
    assert ("aux1.fc1.weight" in both) is (in_file and in_model)
    assert all(torch.equal(loaded[key], state[key]) for key in both)


def test_half_an_auxiliary_classifier_is_an_error(tmp_path: Path) -> None:
    state = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False).state_dict()
    del state["aux1.conv.conv.weight"]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"1 missing \(aux1.conv.conv.weight\)"):
        build_classifier("googlenet", str(tmp_path / "weights.pth"), CLASSES, image_size=64)


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


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({0: torch.zeros(1)}, "maps 0 to Tensor"),
        ({"a": 1}, "maps 'a' to int"),
        ({}, "has no state dict"),
        (torch.zeros(1), "has no state dict"),
    ],
)
def test_files_of_something_else_than_named_tensors_say_what_they_hold(
    tmp_path: Path, content: Any, fault: str
) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"weights.pth: .*{fault}.*; save a model's state_dict"):
        read_state_dict(tmp_path / "weights.pth")


def test_weights_of_a_diverged_run_are_refused(tmp_path: Path) -> None:
    state = tiny_weights()
    state["layer1.0.bn1.bias"][0] = torch.nan
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"weights.safetensors: layer1.0.bn1.bias has values that are not finite"):
        read_state_dict(tmp_path / "weights.safetensors")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_and_variances_below_zero_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, path)
    with pytest.raises(ValueError, match=r"x.pth: a is a tensor of nested tensors, not of plain numbers"):
        read_state_dict(path)
    torch.save({"bn.running_mean": -torch.ones(2), "bn.running_var": torch.tensor([1.0, -0.5])}, path)
    with pytest.raises(ValueError, match=r"x.pth: bn.running_var has variances below 0, so the file is damaged"):
        read_state_dict(path)


def test_a_pipe_is_no_weight_file_and_nothing_waits_for_it() -> None:
    with pytest.raises(FileNotFoundError, match="/dev/null: no weight file, but a device or a pipe; --weights takes"):
        read_state_dict(Path("/dev/null"))
