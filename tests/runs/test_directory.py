"""Run directories: which settings a run continues with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stochnorm import FinetuneConfig
from stochnorm.runs.directory import Run


@pytest.fixture
def config(tmp_path: Path) -> FinetuneConfig:
    config = FinetuneConfig("photos", method="frozen", out=str(tmp_path / "run"))
    Run.of(config).open(config)
    return replace(config, resume=True)


def change(config: FinetuneConfig, **settings: object) -> None:
    """Write other settings into the directory, as if the run had begun with them."""
    path = Run.of(config).config
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_a_run_continues_where_another_version_had_other_defaults_of_unused_settings(config: FinetuneConfig) -> None:
    change(config, budget="10m", p=0.4)
    Run.of(config).check(config)
    change(config, freeze="affine")
    with pytest.raises(ValueError, match="freeze was 'affine', now 'statistics'"):
        Run.of(config).check(config)


def test_a_run_does_not_continue_with_another_method(config: FinetuneConfig) -> None:
    with pytest.raises(ValueError, match="method was 'frozen', now 'vanilla'"):
        Run.of(config).check(replace(config, method="vanilla"))
