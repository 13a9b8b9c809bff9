"""Faults of released code that no other test guards against; docs/deviations.md lists them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stochnorm import FinetuneConfig, finetune
from stochnorm.cli.main import main
from stochnorm.data import DATASETS
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run


def test_the_test_split_decides_nothing(photos: Path, tmp_path: Path, config: Callable[..., FinetuneConfig]) -> None:
    """Other test images: the same weights, selected at the same step."""
    results = []
    for shift in (0, 1):  # the second time every test image has another's label
        rows = ["path,label,split"]
        for k, folder in enumerate(sorted(photos.iterdir())):
            for i, image in enumerate(sorted(folder.iterdir())):
                split = "test" if i < 3 else "val" if i < 5 else "train"
                label = (k + shift * (split == "test")) % 3
                rows.append(f"{image.relative_to(tmp_path)},{label},{split}")
        (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
        results.append(
            finetune(config(tmp_path / "list.csv", tmp_path / f"run{shift}", eval_every=2, lr=0.02), quiet=True)
        )
    first, second = results
    assert first.record["selected"] == second.record["selected"]
    assert first.validation == second.validation
    weights, others = (read_state_dict(Run(result.run).model) for result in results)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert first.test is not None
    assert second.test is not None
    assert first.test["loss"] != second.test["loss"]


def test_a_failed_download_exits_with_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(DATASETS, "cub", replace(DATASETS["cub"], url="http://127.0.0.1:9/cub.tgz"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert main(["download", "cub", str(tmp_path / "data")]) == 1
    assert "error: CUB-200-2011 could not be downloaded" in capsys.readouterr().err
