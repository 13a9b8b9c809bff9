"""A job after another in one process: what is kept changes nothing, and nothing else stays."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from stochnorm import FinetuneConfig, finetune
from stochnorm.comparison.executors.job import Job, perform
from stochnorm.data.images import resident
from stochnorm.models import kept
from stochnorm.runs.directory import Run


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Let go of what the jobs of a test leave for the next one."""
    yield
    kept.keep(on=False)
    resident.release()


@pytest.fixture
def settings(
    photos: Path, tmp_path: Path, job_device: str, config: Callable[..., FinetuneConfig]
) -> Callable[..., FinetuneConfig]:
    def make(name: str, **options: Any) -> FinetuneConfig:
        return config(photos, tmp_path / name, **{"device": job_device, "steps": 4, "eval_every": 2} | options)

    return make


def files(path: str | Path) -> tuple[bytes, ...]:
    run = Run(Path(path))
    return run.model.read_bytes(), run.predictions.read_bytes()


def test_a_run_in_a_warm_process_is_the_run_in_a_new_one(settings: Callable[..., FinetuneConfig]) -> None:
    for method in ("stochnorm", "vanilla", "delta"):
        assert perform(Job(settings(method, method=method))).state == "done"
    assert kept._kept is not None
    kept.keep(on=False)
    resident.release()
    finetune(settings("alone", method="delta"), quiet=True)
    if settings("x").device == "cpu":  # a GPU's bits may differ
        assert files(settings("delta").out) == files(settings("alone").out)


def test_an_image_that_changed_between_two_runs_is_seen(
    settings: Callable[..., FinetuneConfig], photos: Path, tmp_path: Path
) -> None:
    assert perform(Job(settings("before"))).state == "done"
    for path in photos.rglob("*.png"):
        about = path.stat()
        with Image.open(path) as image:
            image.rotate(180).convert("L").convert("RGB").save(path)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert perform(Job(settings("after"))).state == "done"
    kept.keep(on=False)
    resident.release()
    finetune(settings("alone", cache="none"), quiet=True)
    assert files(tmp_path / "after")[1] != files(tmp_path / "before")[1]
    if settings("x").device == "cpu":
        assert files(tmp_path / "after") == files(tmp_path / "alone")


def test_the_network_of_a_run_is_gone_after_it(
    settings: Callable[..., FinetuneConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stochnorm.training import train as module

    networks: list[weakref.ref[Any]] = []

    def assemble(*arguments: Any, **options: Any) -> Any:
        job = whole(*arguments, **options)
        networks.append(weakref.ref(job.classifier.model))
        return job

    whole = module.assemble
    monkeypatch.setattr(module, "assemble", assemble)
    memory = []
    for name in ("one", "two", "three"):
        assert perform(Job(settings(name, method="stochnorm+delta"))).state == "done"
        memory.append(torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0)  # type: ignore[no-untyped-call]
    assert [network() for network in networks] == [None] * 3
    assert memory[1] == memory[2]


def test_a_full_gpu_says_what_to_do(settings: Callable[..., FinetuneConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of")

    monkeypatch.setattr("stochnorm.training.finetune.finetune", full)
    outcome = perform(Job(settings("full")))
    remedy = "give fewer --workers, so that fewer runs share a GPU, or --accumulate 2"
    assert (outcome.state, outcome.reason) == ("failed", f"CUDA out of memory: {remedy}")
    assert "OutOfMemoryError" in Run(Path(settings("full").out)).failure.read_text()
