"""Settings of wrong kinds and sizes are refused in a line that names the setting.

`STOCHNORM_FUZZ=1 pytest tests/runs/test_mutated_settings.py` tries all values.
"""

from __future__ import annotations

import json
import math
import os
import random
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from stochnorm import FinetuneConfig
from stochnorm.runs.config import flat
from stochnorm.runs.names import run_name
from stochnorm.training.display import describe

VALUES: list[Any] = [
    None, True, "", "x", "1", "\0", "\x1b[2J", -1, 0, 1, 2, 10**18, 10**400, -(10**400), -0.5, 0.5, 1.5, 1e308, 5e-324,
    math.nan, math.inf, -math.inf, [], [1], ["a"], [None], {}, {"a": 1}, {"alpha": "x"}, b"x", (), object,
]  # fmt: skip
NAMES = sorted(flat(asdict(FinetuneConfig("x"))))
GROUPS = [f.name for f in fields(FinetuneConfig) if is_dataclass(getattr(FinetuneConfig("x"), f.name))]


def some_values(name: str) -> list[Any]:
    """Return eight values for a setting; all of them with STOCHNORM_FUZZ."""
    return VALUES if os.environ.get("STOCHNORM_FUZZ") else random.Random(name).sample(VALUES, 8)  # noqa: S311


def made(name: str, value: Any) -> FinetuneConfig:
    group, _, own = name.rpartition(".")
    if not group:
        return FinetuneConfig(**{"data": "x"} | {own: value})
    kind = type(getattr(FinetuneConfig("x"), group))
    return FinetuneConfig("x", **{group: kind(**{own: value})})


def check(error: Exception, name: str) -> None:
    text = str(error)
    assert text
    assert "\n" not in text
    assert name.rpartition(".")[2] in text or "is no number" in text  # NaN and Infinity, which JSON does not have
    assert len(text) < 1000


@pytest.mark.parametrize("name", [*NAMES, *GROUPS])
def test_a_setting_is_used_or_refused_by_name(name: str) -> None:
    for value in some_values(name):
        try:
            config = made(name, value)
        except (ValueError, TypeError) as error:
            check(error, name)
            continue
        assert run_name(config)
        assert describe(config)
        json.dumps(config.result_fields(), allow_nan=False)
        try:
            config.check_used()
        except ValueError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("name", [*NAMES, *GROUPS])
def test_a_file_of_settings_is_read_or_refused_by_name(name: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    group, _, own = name.rpartition(".")
    for value in some_values(name):
        try:
            text = json.dumps({"data": "x"} | ({group: {own: value}} if group else {own: value}))
        except TypeError:
            continue
        file.write_text(text)
        try:
            assert FinetuneConfig.load(file).data is not None
        except ValueError as error:
            check(error, name)
            assert str(error).startswith(f"{file}: not a file of stochnorm's settings (")


@pytest.mark.parametrize(
    "text", ["", "[]", "1", "null", '"x"', "{", '{"data": 1}', "{}", '{"data": "x", "unknown": 1}', "\0"]
)
def test_a_file_of_another_shape_is_no_file_of_settings(text: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"settings.json: not a file of stochnorm's settings \("):
        FinetuneConfig.load(tmp_path / "settings.json")


def test_reading_processes_are_bounded() -> None:
    assert FinetuneConfig("photos", workers=256).workers == 256
    with pytest.raises(ValueError, match=r"workers must be in \[0, 256\], got 257"):
        FinetuneConfig("photos", workers=257)
