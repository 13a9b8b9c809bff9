"""The words that people type first: help, version, and names that other tools use."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

import stochnorm
from stochnorm import FinetuneConfig
from stochnorm.cli.main import COMMANDS, in_our_words, main, parse
from stochnorm.cli.words import COMMAND_SYNONYMS
from stochnorm.runs.synonyms import SYNONYMS


def said(args: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a command prints that ends the process."""
    with pytest.raises(SystemExit) as stop:
        main(args.split())
    assert not stop.value.code
    return capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert said("--version", capsys) == f"stochnorm {stochnorm.__version__}\n"


def test_names_of_other_tools_are_understood() -> None:
    line = "train photos/ --learning-rate 0.01 --batch=16 --img-size 96 --model resnet18 --max-steps 5"
    command = parse(line.split())
    assert type(command).__name__ == "Finetune"
    config = command.config()
    assert (config.lr, config.batch_size, config.image_size, config.backbone, config.steps) == (
        0.01, 16, 96, "resnet18", 5,
    )  # fmt: skip
    assert in_our_words(["finetune", "x", "--", "--batch"]) == ["finetune", "x", "--", "--batch"]
    assert in_our_words(["evaluate", "run", "--batch", "4"]) == ["evaluate", "run", "--batch-size", "4"]
    assert in_our_words(["predict", "run", "--size"]) == ["predict", "run", "--size"]  # it has none


def test_a_synonym_stands_for_something_and_hides_nothing() -> None:
    settings = {f.name for f in fields(FinetuneConfig)}
    assert set(SYNONYMS.values()) <= settings
    assert not settings & set(SYNONYMS)
    assert set(COMMAND_SYNONYMS.values()) <= set(COMMANDS)
    assert not set(COMMANDS) & set(COMMAND_SYNONYMS)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("finetune photos --epochs 3", "error: unknown option --epochs; training is counted in steps: an epoch is"),
        ("finetun photos", "error: unknown command 'finetun', did you mean finetune?"),
        ("trian photos", "error: unknown command 'trian', did you mean finetune?"),
        ("xyz", "error: unknown command 'xyz'; commands are inspect, finetune, predict"),
    ],
)
def test_wrong_words_are_one_line_with_a_hint(args: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args.split()) == 2
    line = capsys.readouterr().err
    assert line.startswith(message)
    assert line.count("\n") == 1


def test_a_wrong_option_has_the_status_of_a_wrong_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["finetune", "photos", "--stepps", "3"])
    assert stop.value.code == 2
    assert "--steps INT" in capsys.readouterr().err  # perhaps you meant


def test_help_is_short_and_names_every_other_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    short, long = (said(f"finetune {option}", capsys) for option in ("--help", "--help-all"))
    assert len(short.splitlines()) < 70 < len(long.splitlines())
    assert max(map(len, short.splitlines())) <= 100
    explained = set(re.findall(r"^[│ ]*--([\w-]+)", short.partition("more options")[0], flags=re.MULTILINE))
    named = set(re.findall(r"(?<![\w])--([\w-]+)", short.partition("more options")[2]))
    assert {"method", "steps", "lr", "batch-size", "out"} <= explained
    assert not explained & named
    for field in fields(FinetuneConfig):
        assert field.name == "data" or field.name.replace("_", "-") in explained | named
    assert "explained by stochnorm finetune --help-all" in short


def test_short_help_of_other_commands_has_their_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = said("compare --help", capsys)
    assert "--methods" in text.partition("more options")[0]
    assert not re.search(r"--(folds|resume|data-seed)\b", text)  # the comparison sets them
    assert "--ten-crop" in text.partition("more options")[2]


def test_a_shell_completes_commands_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh"):
        script = said(f"--tyro-print-completion {shell}", capsys)
        missing = [word for word in (*COMMANDS, "--batch-size") if word not in script]
        assert not missing, shell
