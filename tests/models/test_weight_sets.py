"""Several sets of weights in one file: which one is taken, and that the others are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stochnorm import build_classifier
from stochnorm.models.weights import read_state_dict, weight_file, weight_part
from stochnorm.nn import convert

BACKBONE = "test_resnet"


def weights(value: float) -> dict[str, Tensor]:
    return {"conv.weight": torch.full((2,), value), "conv.bias": torch.full((2,), value), "steps": torch.tensor(3)}


def written(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def value(path: Path, part: str = "") -> float:
    state = read_state_dict(path, part)
    assert set(state) == {"conv.weight", "conv.bias", "steps"}
    return float(state["conv.weight"][0])


@pytest.mark.parametrize(
    "key", ["state_dict", "state_dict_ema", "model_ema", "net", "teacher", "ema_state_dict", "model", "params"]
)
def test_the_only_set_is_taken_whatever_its_name(tmp_path: Path, key: str) -> None:
    assert value(written(tmp_path / "w.pth", {key: weights(1), "epoch": 3, "mean": {"rgb": torch.zeros(3)}})) == 1
    assert value(written(tmp_path / "w.pth", {"checkpoint": {key: weights(2)}, "optimizer": {"a": weights(0)}})) == 2


@pytest.mark.parametrize("other", ["state_dict_ema", "model_ema", "ema_state_dict", "teacher"])
@pytest.mark.parametrize("plain", ["state_dict", "model", "model_state_dict"])
def test_an_average_beside_the_weights_is_named_and_can_be_chosen(tmp_path: Path, plain: str, other: str) -> None:
    path = written(tmp_path / "w.pth", {other: weights(2), plain: weights(1)})
    with pytest.warns(UserWarning, match=rf"took the weights {plain}, and not {other} beside them.*w.pth#{other}'"):
        assert value(path) == 1
    assert value(path) == 1  # told once: a run may read its weights several times
    assert value(path, other) == 2
    assert value(path, plain) == 1


def test_without_one_that_is_plain_the_choice_is_the_readers(tmp_path: Path) -> None:
    path = written(tmp_path / "w.pth", {"student": weights(1), "teacher": {"module": weights(2)}})
    with pytest.raises(
        ValueError, match=r"holds 2 sets of weights, student, teacher.module; choose one with --weights"
    ):
        read_state_dict(path)
    assert value(path, "teacher") == 2
    with pytest.raises(ValueError, match=r"has no weights 'ema'; it has student, teacher.module; remove #ema"):
        read_state_dict(path, "ema")


def test_a_mark_in_a_files_own_name_is_its_name(tmp_path: Path) -> None:
    plain, marked = written(tmp_path / "w.pth", weights(1)), written(tmp_path / "w.pth#1", weights(2))
    for text, file, part in (
        (f"{plain}#ema", plain, "ema"),
        (str(marked), marked, ""),
        (f"{marked}#ema", marked, "ema"),
        (f"{tmp_path}/absent.pth#ema", Path(f"{tmp_path}/absent.pth#ema"), ""),
    ):
        assert (weight_file(text), weight_part(text)) == (file, part)


def test_a_run_starts_at_the_set_that_its_weights_name(tmp_path: Path) -> None:
    first, second = (build_classifier(BACKBONE, "random", ("a",), seed=seed).model.state_dict() for seed in (1, 2))
    both = {f"encoder_q.{key}": tensor for key, tensor in first.items()}
    both |= {f"encoder_k.{key}": tensor for key, tensor in second.items()}
    path = written(tmp_path / "w.pth", {"state_dict": first, "state_dict_ema": second, "both": both})
    for part, expected in (("state_dict_ema", second), ("state_dict", first)):
        model = build_classifier(BACKBONE, f"{path}#{part}", ("a", "b")).model
        assert torch.equal(model.state_dict()["layer1.0.bn1.weight"], expected["layer1.0.bn1.weight"])
        assert torch.equal(model.state_dict()["conv1.0.weight"], expected["conv1.0.weight"])
    path = written(tmp_path / "moco.pth", both)
    model = build_classifier(BACKBONE, f"{path}#encoder_k", ("a", "b")).model
    assert torch.equal(model.state_dict()["conv1.0.weight"], second["conv1.0.weight"])


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "_orig_mod.module.model.", "model.backbone.", "model.net."])
def test_prefixes_add_up_and_wrappers_are_removed_inside_names(tmp_path: Path, prefix: str) -> None:
    state = convert(build_classifier(BACKBONE, "random", ("a",), seed=1).model).state_dict()
    file = {
        prefix + key.replace("layer1.", "layer1._orig_mod.").replace("layer2.", "layer2._checkpoint_wrapped_module."): v
        for key, v in state.items()
        if not key.endswith("num_batches_tracked")
    }
    path = written(tmp_path / "w.pth", file)
    loaded = build_classifier(BACKBONE, str(path), ("a", "b", "c")).model.state_dict()
    same = [key for key in loaded if not key.startswith("fc.") and not key.endswith("num_batches_tracked")]
    assert all(torch.equal(loaded[key], state[key]) for key in same)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    state = build_classifier(BACKBONE, "random", ("a",), seed=1).model.state_dict()
    path = written(tmp_path / "w.pth", {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()})
    loaded = build_classifier(BACKBONE, str(path), ("a", "b")).model.state_dict()
    assert torch.equal(loaded["conv1.0.weight"], state["conv1.0.weight"].to(dtype).float())
    assert loaded["conv1.0.weight"].dtype == torch.float32


def test_whole_numbers_for_weights_are_refused(tmp_path: Path) -> None:
    state = build_classifier(BACKBONE, "random", ("a",), seed=1).model.state_dict()
    path = written(tmp_path / "w.pth", state | {"conv1.0.weight": (100 * state["conv1.0.weight"]).to(torch.int8)})
    with pytest.raises(ValueError, match=r"1 of another kind of numbers \(conv1.0.weight int8\)"):
        build_classifier(BACKBONE, str(path), ("a", "b"))
