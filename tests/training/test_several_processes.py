"""A job of several processes with synchronized StochNorm."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from processes import torchrun
from stochnorm import FinetuneConfig, finetune

# Fine-tunes, and writes the last masks and the moving statistics of this process's layers.
SCRIPT = """
import os, sys, torch
from stochnorm import FinetuneConfig, finetune
from stochnorm.nn.stochastic import _StochNorm

layers = {}

def remember(module, inputs, output):
    if isinstance(module, _StochNorm) and module.training:
        layers[id(module)] = module

torch.nn.modules.module.register_module_forward_hook(remember)
finetune(FinetuneConfig.load(sys.argv[1]), quiet=True)
torch.save(
    [[layer._last_step[0], layer.running_mean, layer.running_var] for layer in layers.values()],
    f"{sys.argv[2]}/{os.environ['RANK']}.pt",
)
"""


def test_processes_of_a_job_share_masks_and_statistics(
    photos: Path, tmp_path: Path, config: Callable[..., FinetuneConfig]
) -> None:
    script, settings = tmp_path / "job.py", tmp_path / "settings.json"
    script.write_text(SCRIPT)
    settings.write_text(json.dumps(asdict(config(photos, tmp_path / "run", steps=3, sync_norm=True))))
    torchrun(script, settings, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert len(first) > 5
    assert all(
        torch.equal(a, b) for ours, theirs in zip(first, second, strict=True) for a, b in zip(ours, theirs, strict=True)
    )
    masks = torch.cat([layer[0] for layer in first])
    assert 0.3 < masks.double().mean() < 0.7


def test_in_a_single_process_it_changes_nothing_and_says_so(
    photos: Path, tmp_path: Path, config: Callable[..., FinetuneConfig]
) -> None:
    settings = config(photos, tmp_path / "run", steps=1, sync_norm=True)
    with pytest.warns(UserWarning, match="sync_norm changes nothing in a single process"):
        finetune(settings, quiet=True)
    with pytest.raises(ValueError, match=r"cannot resume .*: sync_norm was True, now False"):
        finetune(replace(settings, sync_norm=False, resume=True), quiet=True)


def test_runs_with_it_have_a_name_of_their_own(photos: Path, config: Callable[..., FinetuneConfig]) -> None:
    """Runs without it keep the name that earlier versions gave them; test_earlier_runs has some."""
    plain, together = (config(photos, sync_norm=on) for on in (False, True))
    assert "sync_norm" not in plain.result_fields()
    assert together.result_fields() == plain.result_fields() | {"sync_norm": True}


def test_it_is_a_setting_of_stochnorm(photos: Path, config: Callable[..., FinetuneConfig]) -> None:
    with pytest.raises(ValueError, match="method vanilla does not use sync_norm, which is for stochnorm"):
        config(photos, method="vanilla", sync_norm=True).check_used()
