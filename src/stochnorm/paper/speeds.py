"""Measure the speeds of training steps and evaluations on this machine, by short runs on noise."""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stochnorm.comparison.executors.job import cores
from stochnorm.comparison.grid import override
from stochnorm.evaluation.logits import evaluate_split
from stochnorm.methods.catalogue import methods_of
from stochnorm.paper.hours import Speeds, work_of
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.runs.hardware import check_device
from stochnorm.text import count
from stochnorm.training.display import Display
from stochnorm.training.finetune import finetune
from stochnorm.training.job import assemble

__all__ = ["measure"]

_IMAGES = {"train": 64, "val": 4, "test": 4}
_SIDE = 256
_STEPS_ON_GPU, _STEPS_ON_CPU = 30, 1
_BATCH_ON_CPU = 8  # images; the time of an image hardly depends on it there


def measure(configs: Iterable[FinetuneConfig], *, threads: int = 0, quiet: bool = False) -> Speeds:
    """Measure the speed of each network with each method that the runs have, with random weights, by jobs of few steps.

    A sum of methods is not measured: it follows from its parts.

    Args:
        configs: Settings of the runs; their data are not used.
        threads: CPU threads of a run; 0: PyTorch's own number. With a number, a CPU counts as several devices.
        quiet: Show no progress.
    """
    bases: dict[str, FinetuneConfig] = {}
    wanted: dict[str, dict[str, None]] = {}
    for config in configs:
        bases.setdefault(config.backbone, config)
        parts = wanted.setdefault(config.backbone, {"vanilla": None})
        parts |= dict.fromkeys(part.name for part in methods_of(config.method))
    pairs = [(bases[backbone], method) for backbone, parts in wanted.items() for method in parts]
    device = check_device(pairs[0][0].device, "auto")
    devices = torch.cuda.device_count() if device == "cuda" else max(cores() // threads, 1) if threads else 1
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        training, evaluation, start, how = _measure(pairs, device, Display(quiet=quiet))
        return Speeds(training, evaluation, start, _name(device), devices, how)
    finally:
        torch.set_num_threads(before)


def _measure(
    pairs: list[tuple[FinetuneConfig, str]], device: str, display: Display
) -> tuple[dict[str, dict[str, float]], dict[str, float], float, str]:
    """Return the speeds of training and evaluation, the seconds to start a run, and how they were measured."""
    display.note(f"measuring {count(len(pairs), 'kind')} of training steps on {_name(device)}; this takes minutes")
    training: dict[str, dict[str, float]] = {base.backbone: {} for base, _ in pairs}
    evaluation: dict[str, float] = {}
    starts, how = [], ""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _write_noise(Path(folder) / "noise")
        for number, (base, method) in enumerate(display.track(pairs, description="measuring", total=len(pairs))):
            config = _short(base, method, Path(folder), number, device)
            if base.backbone not in evaluation:
                evaluation[base.backbone] = _evaluation(config)
            begin = time.perf_counter()
            try:
                cost = finetune(config, quiet=True, test=False).record["cost"]
            except KeyboardInterrupt:
                raise KeyboardInterrupt from None  # without its advice to resume: the run is gone
            whole = time.perf_counter() - begin
            training[base.backbone][method] = cost["images_per_second"]  # of the second half; the first is warm-up
            crops = work_of(config, {**_IMAGES, "test": 0}).crops
            starts.append(max(whole - cost["seconds"] - crops / evaluation[base.backbone], 0.0))
            steps = count(config.eval_every, "step")
            how = f"{steps} of {config.batch_size} images after as many, on noise, one run at a time"
    return training, evaluation, statistics.median(starts), how


def _short(base: FinetuneConfig, method: str, folder: Path, number: int, device: str) -> FinetuneConfig:
    """Return the settings of a run of few steps that has the speed of a long one."""
    small = device == "cpu" and base.backbone.partition("/")[0] != "small"
    steps = _STEPS_ON_CPU if small else _STEPS_ON_GPU
    plain = replace(
        base.without_unused(),
        method="vanilla",
        data=str(folder / "noise"),
        weights="random",
        batch_size=min(base.batch_size, _BATCH_ON_CPU) if small else base.batch_size,
        steps=2 * steps,
        eval_every=steps,
        lr=1e-9,  # random weights must not diverge
        rate=100.0,
        pool_val=False,
        cache="memory",
        workers=0 if device == "cpu" else base.workers,  # forking them takes longer than these steps
        log="none",
        report=False,
        out=str(folder / f"run-{number}"),
    ).without_unused()
    return override(plain, {"method": method, **({"delta.attention": "uniform"} if method == "delta" else {})})


def _evaluation(config: FinetuneConfig) -> float:
    """Return crops per second of an evaluation as the test has it."""
    job = assemble(config, Run.of(config), Display(quiet=True))
    split = job.splits["test"]

    def score() -> float:
        begin = time.perf_counter()
        evaluate_split(
            job.classifier, split, job.fabric, batch_size=config.batch_size, ten_crop=config.ten_crop, task=job.task
        )
        return time.perf_counter() - begin

    score()  # warm-up
    crops = len(split) * (10 if config.ten_crop else 1)
    return crops / min(score() for _ in range(1 if job.fabric.device.type == "cpu" else 3))


def _write_noise(folder: Path) -> None:
    """Write images of noise in two classes, in train, val and test folders."""
    rng = np.random.default_rng(0)
    for split, images in _IMAGES.items():
        for number in range(images):
            path = folder / split / "ab"[number % 2] / f"{number:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)).save(path)


def _name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{device}, {count(torch.get_num_threads(), 'thread')}"
