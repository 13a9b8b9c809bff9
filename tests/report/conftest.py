"""Run directories that are generated instead of trained, with the files that a report reads."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stochnorm.evaluation.metrics import classification_metrics, multilabel_metrics
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.runs.names import run_name
from stochnorm.runs.predictions import format_confusion, format_predictions
from stochnorm.runs.records import Record, record_of

HOSTILE = "<script>alert(1)</script> & \"quotes\" 'too' {{ 7 * 7 }} %{x} $a^2$"


def write_run(
    root: Path,
    config: FinetuneConfig,
    *,
    classes: Sequence[str] = ("blue", "green", "red"),
    paths: Sequence[str] = (),
    truth: Sequence[int] = (),
    skill: float = 1.5,
    variant: str = "",
    scale: str = "",
    multi_label: bool = False,
    test: bool = True,
    generator: int | None = None,
) -> Record:
    """Write a finished run of ``config`` below ``root``, as [stochnorm.finetune][] leaves it, without the model."""
    rng = np.random.default_rng(config.seed if generator is None else generator)
    run = Run(root / "runs" / run_name(config))
    run.path.mkdir(parents=True, exist_ok=True)
    paths = paths or [f"{name}/{i:03d}.png" for name in classes for i in range(10)]
    labels = np.array(truth if len(truth) else [i * len(classes) // len(paths) for i in range(len(paths))])
    score = "mean_auc" if multi_label else "top1"
    if multi_label:
        targets = torch.tensor(rng.random((len(paths), len(classes))) < 0.3).float()
        logits = torch.tensor(rng.normal(0, 1, targets.shape)) + skill * (targets * 2 - 1.2)
        metrics = multilabel_metrics(logits, targets, resamples=20)
        probabilities = logits.sigmoid()
        names = ["|".join(n for n, has in zip(classes, row, strict=True) if has) for row in targets.bool().tolist()]
        predicted = ["|".join(n for n, p in zip(classes, row, strict=True) if p >= 0.5) for row in probabilities]
    else:
        logits = torch.tensor(rng.normal(0, 1, (len(paths), len(classes))))
        # Some classes are alike: the next one is often taken for it.
        hard = torch.tensor(rng.uniform(0.2, 1.8, len(classes)))
        logits[torch.arange(len(paths)), labels] += skill * hard[labels]
        logits[torch.arange(len(paths)), (labels + 1) % len(classes)] += 0.4 * skill
        logits *= 1.6
        metrics = classification_metrics(logits, torch.tensor(labels))
        probabilities = logits.softmax(1)
        names = [classes[i] for i in labels]
        predicted = [classes[i] for i in logits.argmax(1)]
    history = []
    for k in range(1, 13):
        done = 1 - math.exp(-k / 3)
        value = metrics[score] * (0.35 + 0.65 * done) + rng.normal(0, 0.8)
        train = {} if multi_label else {f"train_{score}": 98 * done + rng.normal(0, 1)}
        history.append(
            {
                "step": 25 * k,
                "epoch": round(k * 1.3, 2),
                "lr": config.lr,
                "score": score,
                "train_loss": 3.5 * math.exp(-k / 4) + 0.1,
                **train,
                "val_loss": metrics["loss"] * (1 + 1.5 * math.exp(-k / 2)) + rng.normal(0, 0.02),
                f"val_{score}": min(value, 100.0),
            }
        )
    validation = {**metrics, score: history[-1][f"val_{score}"]}
    result = {
        "config": asdict(config),
        "weights": "bundled",
        "classes": list(classes),
        "score": score,
        "images": {"train": 24 * len(classes), "val": 6 * len(classes), "test": len(paths) if test else 0},
        "left_out": 0,
        "method": {"name": config.method, "normalization": {"StochNormAct2d": 49}, "terms": [], "weight_decay": 5e-4},
        "selected": {"step": history[-1]["step"], "by": "validation top-1, then loss"},
        "validation": validation,
        "test": metrics if test else None,
        "cost": {
            "seconds": 180 * (1 + 0.3 * config.method.count("+")) + float(rng.uniform(0, 30)),
            "images_per_second": 55.0,
            "peak_memory_gigabytes": 1.25,
        },
        "environment": {"stochnorm": "0.1.0", "torch": "2.9", "device": "cpu x86_64", "threads": 2},
    }
    run.config.write_text(json.dumps(asdict(config)))
    run.write_metrics(history)
    if test:
        text = format_predictions(list(paths), predicted, probabilities.tolist(), list(classes), names)
        run.predictions.write_text(text)
    if test and not multi_label:
        run.confusion.write_text(format_confusion(names, predicted, list(classes)))
    run.result.write_text(json.dumps(result))
    return record_of(run, variant, f"runs/{run.path.name}", scale)


def write_comparison(
    root: Path,
    base: FinetuneConfig,
    skills: dict[str, float],
    *,
    rates: Sequence[float] = (15.0, 50.0),
    repeats: int = 5,
    **options: Any,
) -> list[Record]:
    """Write a run of every method (with its skill), rate and repeat; better with more images."""
    records = []
    for repeat in range(repeats):
        for rate in rates:
            for number, (method, skill) in enumerate(skills.items()):
                config = replace(base, method=method, rate=rate, data_seed=repeat, seed=repeat)
                gain = skill + 0.35 * math.log(rate / 15)
                seed = 1000 * repeat + int(rate) + 7 * number
                records.append(write_run(root, config, skill=gain, generator=seed, **options))
    return records


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Write images of classes whose names, and one file name, would be markup if they were not escaped."""
    root = tmp_path / "hostile"
    for name, color in (("blue", (40, 40, 200)), (HOSTILE.replace("/", "\N{DIVISION SLASH}"), (200, 40, 40))):
        (root / name).mkdir(parents=True)
        for file in ("000.png", '"><img src=x onerror=alert(2)>.png'):
            Image.new("RGB", (24, 24), color).save(root / name / file)
    return root


@pytest.fixture
def comparison(tmp_path: Path, photos: Path) -> list[Record]:
    """Write three methods at two rates, five times each, below ``tmp_path / "grid"``."""
    skills = {"vanilla": 1.0, "stochnorm": 1.6, "stochnorm+bss": 1.7}
    return write_comparison(tmp_path / "grid", FinetuneConfig(str(photos)), skills)


@pytest.fixture
def single(tmp_path: Path, photos: Path) -> Callable[..., Record]:
    """Return a function that writes one run below ``tmp_path / "grid"``."""

    def write(**options: Any) -> Record:
        config = replace(FinetuneConfig(str(photos)), **options.pop("settings", {}))
        return write_run(tmp_path / "grid", config, **options)

    return write


@pytest.fixture
def embedded() -> Callable[[str, str], Any]:
    """Return a function that reads the data of the page's script."""

    def read(page: str, name: str) -> Any:
        (text,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
        return json.loads(text)

    return read


@pytest.fixture
def words() -> Callable[[str], str]:
    """Return a function that gives the visible text of a page, on one line."""

    def read(page: str) -> str:
        body = re.sub(r"<(script|style)\b.*?</\1>", "", page[page.index("<body>") :], flags=re.S)
        return " ".join(unescape(re.sub(r"<wbr>", "", re.sub(r"<(?!wbr>)[^>]+>", " ", body))).split())

    return read


@pytest.fixture
def rows() -> Callable[[str], dict[tuple[str, str], tuple[str, list[str]]]]:
    """Return a function that reads the table of all results: by rate and method the mark and the cells' values."""
    row = r'<tr data-data="\w+" data-rate="(\S+)" data-variant="([^"]+)" data-mark="(\w*)">(.*?)</tr>'

    def rounded(value: str) -> str:
        return f"{float(value):.9f}" if re.fullmatch(r"-?\d+\.\d+(e-\d+)?", value) else value

    def read(page: str) -> dict[tuple[str, str], tuple[str, list[str]]]:
        return {
            (rate, variant): (mark, [rounded(value) for value in re.findall(r'data-v="([^"]*)"', cells)])
            for rate, variant, mark, cells in re.findall(row, page, re.S)
        }

    return read
