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


def test_your_training_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    original = timm.create_model

    def offline(name: str, pretrained: bool, **options: Any) -> torch.nn.Module:
        return original("resnet18" if pretrained else name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    names: dict[str, Any] = {}
    exec(re.sub(r"^\.\.\..*$", "kinds = {type(m).__name__ for m in model.modules()}", BLOCKS[1], flags=re.M), names)  # noqa: S102
    assert "StochNorm2d" in names["kinds"] or "StochNormAct2d" in names["kinds"]
    assert not any("Stoch" in type(m).__name__ for m in names["model"].modules())
