"""Runs of method auto whose clock decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stochnorm import FinetuneConfig, finetune
from stochnorm.training.auto import search
from stochnorm.training.auto.budget import Pace


@pytest.fixture(autouse=True)
def pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock decides nothing."""
    for measures in ("_measured", "_pace_of"):
        monkeypatch.setattr(search.Search, measures, lambda self, *_: Pace(0.01, 0.1))


@pytest.fixture
def settings(config: Callable[..., FinetuneConfig], photos: Path, tmp_path: Path) -> FinetuneConfig:
    return config(photos, tmp_path / "run", method="auto", steps=4, eval_every=4, lr=0.002)


@pytest.fixture
def stop_in(settings: FinetuneConfig) -> Callable[[ModuleType, str], None]:
    """Stops the run of `settings` where it calls a function of a module for the first time."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def stop(module: ModuleType, name: str) -> None:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, name, interrupted)
            finetune(settings, quiet=True)

    return stop
