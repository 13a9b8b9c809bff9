"""Fixtures of the runs: settings, weights, and what happens at each step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stochnorm.cli.demo
import stochnorm.runs.hardware
import stochnorm.training.job
import stochnorm.training.loop
from stochnorm import (
    FinetuneConfig,
    build_classifier,
    finetune,
)
from stochnorm.runs.directory import Run
from stochnorm.training.objective import Objective


@pytest.fixture
def tiny(tiny: dict[str, Any]) -> dict[str, Any]:
    return tiny | {"lr": 0.02}


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A file of weights, whose moving statistics are inherited."""
    path = tmp_path / "weights.pth"
    torch.save(build_classifier("test_resnet", "random", ("a", "b"), image_size=32).model.state_dict(), path)
    return str(path)


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Kind and training mode of the first normalization layer, per training step."""
    seen: list[tuple[str, bool]] = []
    original = Objective.__call__

    def spy(self: Objective, *args: Any, **options: Any) -> Any:
        network = self.classifier.model
        layer = next(m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        seen.append((type(layer).__name__, layer.training))
        return original(self, *args, **options)

    monkeypatch.setattr(Objective, "__call__", spy)
    return seen


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, FinetuneConfig], None]:
    """Run until Ctrl-C comes in the given step."""

    def stop(step: int, settings: FinetuneConfig) -> None:
        checkpoint = Run.of(settings).checkpoint
        done = torch.load(checkpoint, weights_only=True)["step"] if settings.resume else 0
        asked = itertools.count(1 + done)
        with monkeypatch.context() as patch:
            patch.setattr(stochnorm.training.loop, "agreed", lambda fabric, stop: next(asked) >= step)
            with pytest.raises(KeyboardInterrupt, match=rf"stopped after step {step} of"):
                finetune(settings, quiet=True)

    return stop
