"""A step that is replayed from a graph computes what the step itself does, bit for bit.

The graph is a tape of operations (tape.py), so all of this runs on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

import stochnorm.training.job
import stochnorm.training.loop
from stochnorm import FinetuneConfig, finetune
from stochnorm.models.weights import read_state_dict
from stochnorm.nn.cpu import depthwise, kernel
from stochnorm.regularizers import BSS, DELTA, L2SP
from stochnorm.runs.directory import Run
from stochnorm.training.captured import CapturedStep, obstacle
from stochnorm.training.job import Job
from stochnorm.training.step import TrainingStep
from training.tape import Reads, Tape

METHOD_TERMS = {"l2sp": L2SP, "delta": DELTA, "bss": BSS}
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
            terms = [t for r in step.objective.regularizers.values() for t in (*r.parameters(), *r.buffers())]
            return [*step.network.parameters(), *step.network.buffers(), *terms, *momenta, step.sums._values]

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
        {"method": "stochnorm", "p": 1.0, "p_end": 0.3, "p_schedule": "linear"},
        {"method": "bin"},
        {"method": "vanilla", "mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1, "accumulate": 2},
        {"method": "frozen+l2sp"},
        {"method": "stochnorm+l2sp+delta", "accumulate": 2},
        {"method": "stochnorm+sam", "accumulate": 2},
        {"method": "vanilla+bituning+sam", "accumulate": 2},
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
    results = [Run(tmp_path / name).read_result() for name in ("graph", "eager")]
    assert [result["environment"]["cuda_graph"] for result in results] == [True, "asked"]


def test_the_tape_is_as_strict_as_a_graph() -> None:
    """It keeps numbers, draws random numbers again, and refuses to read a value; a capture changes nothing."""
    total, random, factor = torch.zeros(2), torch.zeros(2), 3.0

    def run() -> None:
        total.add_(torch.ones(2) * factor)
        random.copy_(torch.rand(2))

    tape = Tape(lambda: [total, random])
    tape.capture(run)
    assert total.tolist() == random.tolist() == [0.0, 0.0]
    factor = 5.0
    torch.manual_seed(1)
    tape.replay()
    torch.manual_seed(1)
    expected = torch.rand(2)
    assert (total.tolist(), random.tolist()) == ([3.0, 3.0], expected.tolist())
    tape.replay()
    assert total.tolist() == [6.0, 6.0]
    assert random.tolist() != expected.tolist()
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        tape.capture(total[0].item)


@pytest.mark.parametrize("stop_after", [2, 5, 8])
def test_a_run_that_was_stopped_resumes_to_the_same_bits(
    photos: Path, tmp_path: Path, config: Configure, tapes: list[Tape], stop_at: StopAt, stop_after: int
) -> None:
    """Before the capture, behind it, and behind a validation; the resumed run captures another graph."""
    settings = {"method": "stochnorm+l2sp", "steps": 14, "eval_every": 7, "lr": 0.002}
    finetune(config(photos, tmp_path / "whole", **settings), quiet=True)
    stop_at(stop_after, config(photos, tmp_path / "parts", **settings))
    checkpoint = torch.load(tmp_path / "parts/checkpoint.pt", weights_only=True)
    assert all(type(group["lr"]) is float for group in checkpoint["optimizer"]["param_groups"])
    finetune(config(photos, tmp_path / "parts", resume=True, **settings), quiet=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    assert [tape.replays for tape in tapes] == [11, max(stop_after - 3, 0), 14 - stop_after - 3]


def test_a_checkpoint_goes_from_a_cpu_to_a_gpu_and_back(
    photos: Path, tmp_path: Path, config: Configure, tapes: list[Tape], stop_at: StopAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its own implementation of the optimizer."""
    settings = {"method": "vanilla", "steps": 12, "eval_every": 12, "lr": 0.002}
    fused: list[object] = []
    original = TrainingStep.prepare

    def prepare(self: TrainingStep, number: int) -> None:
        fused.append(self.optimizer.param_groups[0]["fused"])
        original(self, number)

    monkeypatch.setattr(TrainingStep, "prepare", prepare)
    with monkeypatch.context() as patch:
        patch.setattr(stochnorm.training.loop, "_on_gpu", lambda job: False)
        patch.setattr(stochnorm.training.loop, "_in_graph", lambda job, step: CapturedStep(step, None, "asked"))
        stop_at(4, config(photos, tmp_path / "run", **settings))
    stop_at(9, config(photos, tmp_path / "run", resume=True, **settings))
    monkeypatch.setattr(stochnorm.training.loop, "_on_gpu", lambda job: False)
    monkeypatch.setattr(stochnorm.training.loop, "_in_graph", lambda job, step: CapturedStep(step, None, "asked"))
    finetune(config(photos, tmp_path / "run", resume=True, **settings), quiet=True)
    assert fused == [None] * 4 + [True] * 5 + [None] * 3


def test_a_step_reads_nothing_from_its_device(photos: Path, tmp_path: Path, config: Configure) -> None:
    """Neither in eager steps: no value leaves the device between two validations."""
    counts: list[int] = []
    original = TrainingStep.__call__

    def call(self: TrainingStep, number: int, inputs: Any) -> None:
        with Reads() as reads:
            original(self, number, inputs)
        counts.append(len(reads.names))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingStep, "__call__", call)
        finetune(config(photos, tmp_path / "run", method="stochnorm+l2sp+delta", lr=0.002, accumulate=2), quiet=True)
    assert counts == [0] * 12


def test_reads_are_counted() -> None:
    with Reads() as reads:
        float(torch.ones(2).sum())
        bool(torch.ones(2).isfinite().all())
    assert len(reads.names) == 2


def test_a_loss_that_is_not_finite_is_noticed_before_anything_is_written(
    photos: Path, tmp_path: Path, config: Configure, tapes: list[Tape]
) -> None:
    """At the next read, with the step at which it happened; nothing of the steps behind it is kept."""
    settings = config(photos, tmp_path / "run", method="vanilla", lr=1e30, eval_every=6)
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(
            FloatingPointError, match=r"the loss is nan at step \d+: training diverged with lr 1e\+30"
        ) as error,
    ):
        patch.setattr("stochnorm.training.sums._PERIOD", 1000.0)  # the display does not look
        finetune(settings, quiet=True)
    assert int(str(error.value).split("step ")[1].split(":")[0]) < 6
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "images.csv", "split.csv"}


def test_a_bad_loss_stops_an_interrupted_run_from_writing_a_checkpoint(
    photos: Path, tmp_path: Path, config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stochnorm.training.sums._PERIOD", 1000.0)
    steps = iter(range(100))
    monkeypatch.setattr(stochnorm.training.loop, "agreed", lambda fabric, stop: next(steps) == 4)
    with pytest.raises(FloatingPointError, match="the loss is nan at step"):
        finetune(config(photos, tmp_path / "run", method="vanilla", lr=1e30, eval_every=12), quiet=True)
    assert not (tmp_path / "run/checkpoint.pt").exists()


class Waiting(nn.Module):
    """Reads a value in training, as data-dependent control flow does."""

    def forward(self, input: Tensor) -> Tensor:
        return input * 2 if self.training and float(input.detach().sum()) > 1e9 else input


def test_a_network_that_waits_runs_without_a_graph_and_says_why(
    photos: Path, tmp_path: Path, config: Configure, tapes: list[Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr("stochnorm.training.display.Display.note", lambda self, text: notes.append(text))
    with_wait(monkeypatch)
    finetune(config(photos, tmp_path / "run", method="vanilla", lr=0.002), quiet=True)
    reason = Run(tmp_path / "run").read_result()["environment"]["cuda_graph"]
    assert reason == "a step waits for the device: aten._local_scalar_dense.default"
    assert f"training steps run without a CUDA graph: {reason}" in notes
    (tape,) = tapes
    assert (tape.warm_ups, tape.captures, tape.replays) == (3, 0, 0)


def with_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    build = stochnorm.training.job.build_classifier

    def built(*args: Any, **options: Any) -> Any:
        classifier = build(*args, **options)
        classifier.model.act1 = nn.Sequential(classifier.model.act1, Waiting())
        return classifier

    monkeypatch.setattr("stochnorm.training.job.build_classifier", built)


def test_a_failed_capture_loses_no_step(
    photos: Path, tmp_path: Path, config: Configure, tapes: list[Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with the bits of a run without a graph."""
    monkeypatch.setattr(Tape, "warm_up", lambda self, run: run() or "")  # it does not see what waits
    with_wait(monkeypatch)
    settings = {"method": "stochnorm", "lr": 0.002, "select": "last"}
    finetune(config(photos, tmp_path / "failed", **settings), quiet=True)
    assert [tape.captures for tape in tapes] == [1]
    reason = Run(tmp_path / "failed").read_result()["environment"]["cuda_graph"]
    assert reason.startswith("the capture failed: operation not permitted when stream is capturing")
    monkeypatch.setattr(stochnorm.training.loop, "_in_graph", lambda job, step: CapturedStep(step, None, "asked"))
    finetune(config(photos, tmp_path / "eager", **settings), quiet=True)
    assert_same_bits(tmp_path / "failed", tmp_path / "eager")


def test_a_short_training_says_that_it_captured_nothing(
    photos: Path, tmp_path: Path, config: Configure, tapes: list[Tape]
) -> None:
    finetune(config(photos, tmp_path / "run", steps=3), quiet=True)
    reason = Run(tmp_path / "run").read_result()["environment"]["cuda_graph"]
    assert reason == "the graph is captured after 3 steps, which the training did not reach"


@pytest.mark.parametrize(
    ("method", "precision", "processes", "reason"),
    [
        ("stochnorm+l2sp+delta", "bf16-mixed", 1, ""),
        ("bss", "32-true", 1, "bss: the eigenvalue solver reads an error code on the host"),
        ("vanilla", "16-mixed", 1, "the loss scale of float16 was not written for graphs"),
        ("vanilla", "32-true", 2, "several processes exchange their gradients"),
    ],
)
def test_what_a_graph_cannot_hold(method: str, precision: str, processes: int, reason: str) -> None:
    terms = {name: METHOD_TERMS[name] for name in method.split("+") if name in METHOD_TERMS}
    fabric = Mock(device=torch.device("cuda"), world_size=processes)
    fabric._precision.precision = precision
    assert obstacle(Mock(fabric=fabric, objective=Mock(regularizers=terms))) == reason


def test_a_cpu_has_no_graphs() -> None:
    assert obstacle(Mock(fabric=Mock(device=torch.device("cpu")))) == "cpu has no CUDA graphs"
