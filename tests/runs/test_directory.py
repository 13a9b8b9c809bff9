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


def test_a_run_is_the_same_wherever_it_was_started(
    config: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint is known by the settings that change the result."""
    config = replace(config, overwrite=True, resume=False)
    identities = []
    for place in (tmp_path, tmp_path.parent):
        monkeypatch.chdir(place)
        Run.of(config).open(config)
        identities.append(Run.of(config).identity)
    assert identities[0] == identities[1] != ""
    Run.of(config).open(replace(config, seed=config.seed + 1))
    assert Run.of(config).identity != identities[0]
