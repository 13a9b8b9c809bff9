"""Fixtures of the runs: settings, weights, and what happens at each step."""

from __future__ import annotations

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
    original = stochnorm.training.loop._gradients

    def spy(*args: Any) -> dict[str, float]:
        network = args[0].classifier.model
        layer = next(m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        seen.append((type(layer).__name__, layer.training))
        return original(*args)

    monkeypatch.setattr(stochnorm.training.loop, "_gradients", spy)
    return seen


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, FinetuneConfig], None]:
    """Run until Ctrl-C comes in the given step."""

    def stop(step: int, settings: FinetuneConfig) -> None:
        steps = 0
        original = stochnorm.training.loop._check_finite

        def count(*args: Any) -> None:
            nonlocal steps
            steps += 1
            original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(stochnorm.training.loop, "agreed", lambda fabric, stop: steps >= step)
            patch.setattr(stochnorm.training.loop, "_check_finite", count)
            with pytest.raises(KeyboardInterrupt, match=rf"stopped after step {step} of"):
                finetune(settings, quiet=True)

    return stop
