"""The Python of the README runs as it stands."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import stochnorm
from stochnorm.methods import METHODS

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_fine_tuning_from_python(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (photos / "red/000.png").rename(tmp_path / "new.jpg")
    small = partial(stochnorm.FinetuneConfig, steps=4, batch_size=8, image_size=32)  # minutes otherwise
    monkeypatch.setattr(stochnorm, "FinetuneConfig", small, raising=False)
    exec(BLOCKS[0], {})  # noqa: S102
    assert re.search(r"^[\d.]+ \[[\d.]+, [\d.]+\]\nnew.jpg (red|green|blue) 0\.\d+$", capsys.readouterr().out, re.M)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network in place of one to download."""
    original = timm.create_model

    def create_model(name: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        return original("resnet18" if pretrained else name, **options)

    monkeypatch.setattr(timm, "create_model", create_model)


@pytest.mark.usefixtures("offline")
def test_your_training_loop() -> None:
    names: dict[str, Any] = {}
    exec(re.sub(r"^\.\.\..*$", "kinds = {type(m).__name__ for m in model.modules()}", BLOCKS[1], flags=re.M), names)  # noqa: S102
    assert "StochNorm2d" in names["kinds"] or "StochNormAct2d" in names["kinds"]
    assert not any("Stoch" in type(m).__name__ for m in names["model"].modules())
    names |= {"images": torch.randn(2, 3, 64, 64), "labels": torch.tensor([0, 1])}
    exec(BLOCKS[2], names)  # noqa: S102
    assert names["loss"].isfinite()


CARDS = sorted((Path(__file__).parents[1] / "docs/methods").glob("[!R]*.md"))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_the_python_of_a_card(card: Path) -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", card.read_text(), flags=re.DOTALL):
        exec(block, names)  # noqa: S102
    losses = [value for name, value in names.items() if name in ("loss", "penalty")]
    assert all(value.isfinite() for value in losses)


def test_every_method_has_a_card_and_every_card_a_method() -> None:
    assert {path.stem for path in CARDS} | {"vanilla"} == set(METHODS)
    index = (CARDS[0].parent / "README.md").read_text()
    assert all(f"`{name}`" in index for name in METHODS)
