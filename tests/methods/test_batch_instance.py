"""Batch-Instance Normalization in a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from stochnorm import FinetuneConfig, finetune
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run


def test_the_model_of_a_run_holds_rho_inside_its_range(
    photos: Path, tmp_path: Path, config: Callable[..., FinetuneConfig]
) -> None:
    for name, ema in (("last", 0.0), ("averaged", 0.9)):
        finetune(config(photos, tmp_path / name, method="bin", lr=0.5, steps=6, select="last", ema=ema))
        state = read_state_dict(Run(tmp_path / name).model)
        rho = torch.cat([value for key, value in state.items() if key.endswith(".rho")])
        assert rho.min() >= 0
        assert rho.max() <= 1
        assert (rho < 1).any()  # something was learned
