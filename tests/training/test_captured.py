"""A step that is replayed from a graph computes what the step itself does, bit for bit.

The graph is a tape of operations (tape.py), so all of this runs on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stochnorm.training.loop
from stochnorm import FinetuneConfig, finetune
from stochnorm.models.weights import read_state_dict
from stochnorm.nn.cpu import depthwise, kernel
from stochnorm.runs.directory import Run
from stochnorm.training.captured import CapturedStep, obstacle
from stochnorm.training.job import Job
from stochnorm.training.step import TrainingStep
from training.tape import Reads, Tape

Configure = Callable[..., FinetuneConfig]
StopAt = Callable[[int, FinetuneConfig], None]


@pytest.fixture(autouse=True)
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training takes the path of a GPU: nothing is read, and what changes from step to step is in tensors.

    Compiled kernels are no operations of ATen, so a tape cannot see them.
    """
    monkeypatch.setattr(stochnorm.training.loop, "_on_gpu", lambda job: True)
    for module in (kernel, depthwise):
        monkeypatch.setattr(module, "_functions", {})
        monkeypatch.setattr(module, "library", None)


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """Replays steps from tapes, of which there is one per training."""
    made: list[Tape] = []

    def in_graph(job: Job, step: TrainingStep) -> CapturedStep:
        def state() -> list[Tensor]:
            momenta = [of["momentum_buffer"] for of in step.optimizer.state.values()]
            return [*step.network.parameters(), *step.network.buffers(), *momenta, step.sums._values]

        made.append(Tape(state))
        return CapturedStep(step, made[-1], "", job.display.note)

    monkeypatch.setattr(stochnorm.training.loop, "_in_graph", in_graph)
    return made


def lasting(path: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]], dict[str, Any]]:
    """Return weights, records without times, and test metrics of a run."""
    timing = {"seconds", "images_per_second"}
    records = [{k: v for k, v in record.items() if k not in timing} for record in Run(path).read_metrics()]
    return read_state_dict(Run(path).model), records, Run(path).read_result()["test"]


def assert_same_bits(first: Path, second: Path) -> None:
    (weights, *rest), (others, *other_rest) = lasting(first), lasting(second)
    assert rest == other_rest
    assert weights.keys() == others.keys()
    for name in weights:
        assert torch.equal(weights[name], others[name]), name


@pytest.mark.parametrize(
    "options",
    [
        {"method": "vanilla"},
        {"method": "stochnorm"},
        {"method": "bin"},
        {"method": "frozen+l2sp"},
        {"method": "stochnorm+l2sp+delta", "accumulate": 2},
        {"method": "stochnorm", "precision": "bf16"},
        {"method": "vanilla", "backbone": "test_efficientnet", "momentum": 0.0},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_replayed_steps_have_the_bits_of_eager_steps(
    photos: Path, tmp_path: Path, config: Configure, tapes: list[Tape], monkeypatch: pytest.MonkeyPatch, options: Any
) -> None:
    """Over 21 steps with three validations, and the learning rates drop in between."""
    settings = {"steps": 21, "eval_every": 7, "lr": 0.002, "select": "last"} | options
    finetune(config(photos, tmp_path / "graph", **settings), quiet=True)
    (tape,) = tapes
    assert (tape.warm_ups, tape.captures, tape.replays) == (3, 1, 18)
    monkeypatch.setattr(stochnorm.training.loop, "_in_graph", lambda job, step: CapturedStep(step, None, "asked"))
    finetune(config(photos, tmp_path / "eager", **settings), quiet=True)
    assert_same_bits(tmp_path / "graph", tmp_path / "eager")
    environments = [json.loads((tmp_path / name / "result.json").read_text())["environment"] for name in ("graph", "eager")]
    assert [environment["cuda_graph"] for environment in environments] == [True, "asked"]
