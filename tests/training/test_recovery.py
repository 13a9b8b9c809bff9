"""A damaged checkpoint or model is never used: the one before it is, or the error says what to do."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stochnorm import FinetuneConfig, evaluate, finetune, predict
from stochnorm.models.weights import read_notes, read_state_dict
from stochnorm.runs.directory import Run
from stochnorm.training.checkpoint import damage_of

Configure = Callable[..., FinetuneConfig]
StopAt = Callable[[int, FinetuneConfig], None]
Damage = Callable[[Path], None]


def flip_a_tensor(file: Path) -> None:
    """Change four bits in the middle of the longest tensor of a checkpoint, which PyTorch reads without a word."""
    longest = max(zipfile.ZipFile(file).infolist(), key=lambda member: member.file_size)
    flip(file, longest.header_offset + 230 + len(longest.filename) + longest.file_size // 2)


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place : place + 4] = bytes(byte ^ 16 for byte in content[place : place + 4])
    file.write_bytes(content)


def zero(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    file.write_bytes(content)


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-900])


@pytest.fixture
def whole(photos: Path, tmp_path: Path, config: Configure) -> Run:
    return Run(finetune(config(photos, tmp_path / "whole"), quiet=True).run)


@pytest.fixture
def stopped(photos: Path, tmp_path: Path, config: Configure, stop_at: StopAt) -> FinetuneConfig:
    """Stop a run after step 9, with validations at 4 and 8; return the settings to resume it."""
    settings = config(photos, tmp_path / "run")
    stop_at(9, settings)
    return replace(settings, resume=True)


def assert_same_model(one: Run, other: Run) -> None:
    first, second = read_state_dict(one.model), read_state_dict(other.model)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("damage", [flip_a_tensor, shorten, Path.unlink])
def test_the_checkpoint_before_a_damaged_one_is_used_and_leads_to_the_same_bits(
    whole: Run, stopped: FinetuneConfig, damage: Damage, recwarn: pytest.WarningsRecorder
) -> None:
    run = Run.of(stopped)
    damage(run.checkpoint)
    finetune(stopped, quiet=True)
    said = [str(warning.message) for warning in recwarn]
    lost = run.path / "checkpoint.pt"
    if damage is not Path.unlink:  # as a process leaves it that is killed between the two
        assert len(said) == 1
        assert said[0].startswith(f"{lost} cannot be read (")
        assert said[0].endswith("the run continues from the checkpoint before it, after step 8")
    assert_same_model(run, whole)
    assert run.read_result()["test"] == whole.read_result()["test"]
    left = {path.name for path in run.path.iterdir()}
    assert left == {path.name for path in whole.path.iterdir()}


def test_without_another_checkpoint_a_damaged_one_is_an_error(stopped: FinetuneConfig) -> None:
    run = Run.of(stopped)
    run.previous_checkpoint.unlink()
    flip_a_tensor(run.checkpoint)
    message = r"/checkpoint.pt cannot be read \(.*data/\d+ is damaged\); start again with --overwrite"
    with pytest.raises(ValueError, match=message):
        finetune(stopped, quiet=True)


def test_whole_files_of_another_run_are_not_used(
    whole: Run, stopped: FinetuneConfig, stop_at: StopAt, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    other = replace(stopped, seed=1, out=str(tmp_path / "other"), resume=False)
    stop_at(9, other)
    run, stranger = Run.of(stopped), Run.of(other)
    recwarn.clear()
    shutil.copy(stranger.checkpoint, run.checkpoint)
    finetune(stopped, quiet=True)
    assert f"{run.checkpoint} is of a run with other settings; the run continues from" in str(recwarn[0].message)
    assert_same_model(run, whole)
    for file in (stranger.model, stranger.previous_model):
        shutil.copy(whole.model, file)
    with pytest.raises(ValueError, match=r"model.safetensors, the model of step \d, is of another run; .*--overwrite"):
        finetune(replace(other, resume=True), quiet=True)


@pytest.mark.parametrize("damage", [zero, Path.unlink])
def test_a_damaged_or_missing_selected_model_is_not_published(stopped: FinetuneConfig, damage: Damage) -> None:
    run = Run.of(stopped)
    damage(run.model)
    run.previous_model.unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r", the model of step \d, is (damaged|missing); .*--overwrite"):
        finetune(stopped, quiet=True)
    assert not run.result.exists()


def test_a_damaged_model_is_made_again_from_the_checkpoint_before_it(
    photos: Path, tmp_path: Path, config: Configure, stop_at: StopAt
) -> None:
    """With `select` last each validation writes a model, so that of step 4 is there beside that of step 8."""
    whole = Run(finetune(config(photos, tmp_path / "whole", select="last"), quiet=True).run)
    settings = config(photos, tmp_path / "run", select="last")
    stop_at(9, settings)
    run = Run.of(settings)
    assert (read_notes(run.model)["step"], read_notes(run.previous_model)["step"]) == (8, 4)
    stop_at(4, config(photos, tmp_path / "early", select="last"))
    shutil.copyfile(tmp_path / "early/checkpoint.pt", run.previous_checkpoint)  # that of step 9 stands over it
    zero(run.model)
    with pytest.warns(UserWarning, match="the model of step 8, is damaged; the run continues .* after step 4"):
        finetune(replace(settings, resume=True), quiet=True)
    assert_same_model(run, whole)


def test_a_damaged_model_is_refused_by_who_reads_it(whole: Run, photos: Path, config: Configure) -> None:
    image = next(photos.rglob("*.png"))
    zero(whole.model)
    for read in (
        lambda: predict(whole.path, [image]),
        lambda: evaluate(whole.path),
        lambda: finetune(config(photos, whole.path.with_name("next"), weights=str(whole.path)), quiet=True),
    ):
        with pytest.raises(ValueError, match=r"model.safetensors is damaged: its tensors are not those .*--overwrite"):
            read()


def test_every_byte_of_a_model_and_of_a_checkpoint_is_checked(whole: Run, stopped: FinetuneConfig) -> None:
    """A flipped byte is an error, or changes nothing that is read."""
    run = Run.of(stopped)
    model, checkpoint = run.model.read_bytes(), run.checkpoint.read_bytes()
    first = read_state_dict(run.model)
    state = torch.load(run.checkpoint, weights_only=True)
    for number in range(40):
        flip(run.model, number * (len(model) - 4) // 39)
        try:
            second = read_state_dict(run.model)
        except ValueError:
            pass
        else:
            assert all(torch.equal(first[key], second[key]) for key in first)
        run.model.write_bytes(model)
        flip(run.checkpoint, number * (len(checkpoint) - 4) // 39)
        if not damage_of(run.checkpoint):
            again = torch.load(run.checkpoint, weights_only=True)
            assert all(torch.equal(again["model"][key], state["model"][key]) for key in state["model"])
            assert again["history"] == state["history"]
        run.checkpoint.write_bytes(checkpoint)


def test_a_model_without_digest_is_read_as_ever(whole: Run, photos: Path) -> None:
    notes, tensors = read_notes(whole.model), load_file(whole.model)
    before = predict(whole.path, [next(photos.rglob("*.png"))])
    assert notes.pop("digest")
    save_file(tensors, whole.model, metadata={"stochnorm": json.dumps(notes)})
    assert predict(whole.path, [before[0].path]) == before
