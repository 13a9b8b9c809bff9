"""The classifier that a process keeps for its next run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stochnorm import build_classifier
from stochnorm.models import Classifier, build, kept
from stochnorm.models.kept import keeping

CLASSES = ("a", "b", "c")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Keep classifiers during the test; list the weights of those that were built."""
    names: list[str] = []

    def assemble(backbone: str, weights: str, *arguments: Any, **options: Any) -> Classifier:
        names.append(weights)
        return whole(backbone, weights, *arguments, **options)

    whole = build.assemble
    monkeypatch.setattr(build, "assemble", assemble)
    with keeping():
        yield names


def make(weights: object = "random", backbone: str = "test_resnet", **options: Any) -> Classifier:
    return build_classifier(backbone, str(weights), CLASSES, **{"image_size": 32} | options)


def same(one: Classifier, other: Classifier) -> bool:
    first, second = one.model.state_dict(), other.model.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_the_copy_is_what_would_be_built_bit_for_bit(built: list[str]) -> None:
    first, second = make(seed=3), make(seed=3)
    assert built == ["random"]
    with torch.no_grad():
        for parameter in first.model.parameters():
            parameter.zero_()  # a run trains its own
    third = make(seed=3)
    assert built == ["random"]
    kept.keep(on=False)
    new = make(seed=3)
    assert len(built) == 2
    assert same(second, new)
    assert same(third, new)
    assert [each.stride() for each in third.model.parameters()] == [each.stride() for each in new.model.parameters()]
    assert third.head[0] is third.model.get_submodule(third.head_name)


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"image_size": 64}, {"multi_label": True}, {"backbone": "small/resnet50"}]
)
def test_another_setting_is_another_classifier(built: list[str], other: dict[str, Any]) -> None:
    make()
    again = make(**other)
    assert len(built) == 2
    assert again.multi_label == other.get("multi_label", False)
    assert again.preprocessing.image_size == other.get("image_size", 32)
    make()
    assert len(built) == 3, "only the last one is kept"


def test_a_weight_file_that_was_changed_is_read_again(built: list[str], tmp_path: Path) -> None:
    path, new = tmp_path / "weights.safetensors", tmp_path / "new.safetensors"
    state = make(seed=1).model.state_dict()
    save_file(state, path)
    make(path)
    times = path.stat()
    save_file({key: torch.zeros_like(value) for key, value in state.items()}, new)
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
    new.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    changed = make(path)
    assert not next(changed.model.parameters()).any()
    assert built == ["random", str(path), str(path)]
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no such weight file"):
        make(path)


def test_nothing_is_kept_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not kept._on
    make()
    assert kept._kept is None
    with keeping():
        make()
        assert kept._kept is not None
    assert kept._kept is None


def test_a_network_that_cannot_be_copied_is_built_each_time(built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def assemble(*arguments: Any, **options: Any) -> Classifier:
        classifier = whole(*arguments, **options)
        classifier.model.register_buffer("computed", next(classifier.model.parameters()) * 2)
        return classifier

    whole = build.assemble
    monkeypatch.setattr(build, "assemble", assemble)
    for count in (2, 4):
        assert isinstance(make().model, nn.Module)
        assert len(built) == count
