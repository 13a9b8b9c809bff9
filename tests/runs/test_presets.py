"""Presets, in Python and on the command line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stochnorm import FinetuneConfig
from stochnorm.cli.main import main, parse
from stochnorm.comparison.grid import override, parse_variant
from stochnorm.runs.presets import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_defaults_that_options_replace(preset: str) -> None:
    values = PRESETS[preset].settings
    config = FinetuneConfig.of_preset(preset, "photos")
    assert {name: getattr(config, name) for name in values} == dict(values)
    config.check_used()
    for command in ("finetune", "tune"):
        assert parse([command, "photos", "--preset", preset]).config() == config
        given = parse([command, "--lr", "0.5", "--preset", preset, "photos", "--method", "vanilla"]).config()
        assert given == replace(config, lr=0.5, method="vanilla")


def test_the_paper_is_the_default() -> None:
    assert FinetuneConfig.of_preset("paper", "photos") == FinetuneConfig("photos", method="stochnorm")


def test_a_comparison_takes_a_preset_for_all_or_for_one_method() -> None:
    base = parse(["compare", "photos", "--preset", "gentle", "--methods", "vanilla"]).grid().base
    assert (base.schedule, base.lr, base.method) == ("cosine", 0.001, "stochnorm")
    variant = parse_variant("stochnorm:lr=0.5:preset=gentle")
    assert variant.label == "stochnorm, lr = 0.5, preset = gentle"
    config = override(FinetuneConfig("photos"), variant.settings)
    assert (config.method, config.lr, config.schedule) == ("stochnorm", 0.5, "cosine")


def test_an_unknown_preset_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "photos", "--preset", "gental"]) == 1
    assert "unknown preset 'gental', did you mean gentle?; presets are paper, gentle" in capsys.readouterr().err
    assert main(["finetune", "photos", "--preset", "gentle", "--settings", "chosen.json"]) == 1


def test_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "presets"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in PRESETS)
    assert "--schedule cosine" in " ".join(shown.split())
