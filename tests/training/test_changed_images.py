"""A run goes on with the images it began with: the content of the files counts, not their names alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stochnorm import FinetuneConfig, Grid, Variant, compare, finetune
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run
from stochnorm.runs.images import check_images, images_kept
from stochnorm.tuning.tune import tune

Configure = Callable[..., FinetuneConfig]
StopAt = Callable[[int, FinetuneConfig], None]

CHANGED = r"cannot resume .*: (\d+) of its images have changed since it began \(.*\); restore the images, or start"


def repaint(photos: Path, *, forge: bool = False) -> None:
    """Write noise over all images; with `forge` the time of the change is that of before."""
    random = np.random.default_rng(0)
    for path in photos.rglob("*.png"):
        before = path.stat()
        noise = random.integers(0, 256, (24, 24, 3), dtype="uint8")
        path.write_bytes(b"")
        Image.fromarray(noise).save(path)
        if forge:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_images_of_the_same_names_but_of_other_content_are_refused(
    photos: Path, tmp_path: Path, config: Configure, stop_at: StopAt
) -> None:
    settings = config(photos, tmp_path / "run")
    stop_at(5, settings)
    repaint(photos, forge=True)
    with pytest.raises(ValueError, match=CHANGED):
        finetune(replace(settings, resume=True), quiet=True)


def test_a_copy_of_the_images_is_as_good(photos: Path, tmp_path: Path, config: Configure, stop_at: StopAt) -> None:
    """New times and inodes, the same bytes."""
    settings = config(photos, tmp_path / "run")
    stop_at(5, settings)
    shutil.copytree(photos, tmp_path / "copy")
    shutil.rmtree(photos)
    (tmp_path / "copy").rename(photos)
    finetune(replace(settings, resume=True), quiet=True)
    whole = finetune(config(photos, tmp_path / "whole"), quiet=True)
    first, second = (read_state_dict(path / "model.safetensors") for path in (tmp_path / "run", whole.run))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_one_changed_byte_of_the_same_size_and_time_is_seen_and_missing_digests_are_not_trusted(
    photos: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    with images_kept(run, photos, names):
        pass
    check_images(run, photos)
    content = run.images.read_text()
    file = photos / names[3]
    about, pixels = file.stat(), bytearray(file.read_bytes())
    pixels[60] ^= 1
    file.write_bytes(pixels)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(ValueError, match=CHANGED) as raised:
        check_images(run, photos)
    assert "1 of its images" in str(raised.value)
    assert names[3] in str(raised.value)
    pixels[60] ^= 1
    file.write_bytes(pixels)
    run.images.write_text(content)
    lines = [line.rpartition(",")[0] + "," for line in content.splitlines()]  # killed before the digests were there
    run.images.write_text("\n".join([content.splitlines()[0], *lines[1:]]) + "\n")
    with pytest.raises(ValueError, match=CHANGED):
        check_images(run, photos)
    run.images.unlink()  # a run of an earlier version
    check_images(run, photos)


@pytest.mark.parametrize(
    "damage", ["", "path\n", "a,b,c\n1\n", "path,size,mtime,ctime,inode,digest\nx,1,2,3,y,z\n", "\0"]
)
def test_a_damaged_list_of_stamps_is_named(tmp_path: Path, damage: str) -> None:
    run = Run(tmp_path)
    run.images.write_text(damage)
    with pytest.raises(ValueError, match=r"images.csv is damaged \(.+\); start again with --overwrite"):
        check_images(run, tmp_path)


def test_the_file_of_weights_counts_too(
    photos: Path, tmp_path: Path, weights: str, config: Configure, stop_at: StopAt
) -> None:
    """L2-SP's anchors are read from it again."""
    settings = config(photos, tmp_path / "run", weights=weights, method="l2sp")
    stop_at(5, settings)
    state = torch.load(weights, weights_only=True)
    torch.save({key: value * 1.5 if value.is_floating_point() else value for key, value in state.items()}, weights)
    with pytest.raises(ValueError, match=r"1 of its images have changed .*weights.pth"):
        finetune(replace(settings, resume=True), quiet=True)


def test_a_comparison_and_a_search_do_not_mix_old_and_new_images(
    photos: Path, tmp_path: Path, config: Configure
) -> None:
    base = config(photos, steps=4, eval_every=0)
    grid = Grid(base, (Variant("vanilla", {"method": "vanilla"}),), repeats=1)
    (run,) = grid.runs()
    finetune(replace(run.config, out=str(grid.directory(run, tmp_path / "grid"))), quiet=True)
    tune(replace(base, out=str(tmp_path / "search")), trials=1, quiet=True)
    repaint(photos)
    with pytest.raises(ValueError, match=CHANGED):
        compare(replace(grid, repeats=2), tmp_path / "grid", workers=1, threads=1, quiet=True)
    with pytest.raises(ValueError, match=CHANGED):
        tune(replace(base, out=str(tmp_path / "search")), trials=2, quiet=True)


def test_folds_do_not_mix_old_and_new_images(photos: Path, tmp_path: Path, config: Configure) -> None:
    settings = config(photos, tmp_path / "run", steps=2, eval_every=0, folds=2)
    finetune(settings, quiet=True)
    run = Run(tmp_path / "run")
    run.result.unlink()  # as if killed after the first fold
    shutil.rmtree(run.folds / "2")
    shutil.rmtree(run.folds / "final")
    repaint(photos)
    with pytest.raises(ValueError, match=CHANGED):
        finetune(replace(settings, resume=True), quiet=True)
