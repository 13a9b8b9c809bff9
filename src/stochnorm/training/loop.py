"""The training loop, written once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

from stochnorm.data.images.device import batches_for
from stochnorm.evaluation.logits import evaluate_split
from stochnorm.nn.masks import JointMasks
from stochnorm.nn.stochastic import _StochNorm
from stochnorm.regularizers.regularizer import trained_groups, trained_terms
from stochnorm.runs.interrupt import agreed, stop_signal
from stochnorm.training.average import Average
from stochnorm.training.captured import CapturedStep, obstacle
from stochnorm.training.checkpoint import load_checkpoint
from stochnorm.training.compiled import compiled, explained
from stochnorm.training.cuda_graph import CudaGraph
from stochnorm.training.guard import CollapsedError, Verdict, judge, rate_to_try
from stochnorm.training.job import Job
from stochnorm.training.optimizer import make_optimizer
from stochnorm.training.pace import pace_of
from stochnorm.training.rates import Rates
from stochnorm.training.step import TrainingStep
from stochnorm.training.writer import Writer

__all__ = ["Trained", "fit"]

_ASK_EVERY = 16  # steps between two questions of several processes on GPUs whether one was told to stop


class Trained(NamedTuple):
    """What a training leaves besides its files."""

    history: list[dict[str, Any]]
    """A record per validation. In other processes than the first one they lack the validation metrics."""
    cuda_graph: bool | str
    """True if the steps were replayed from a CUDA graph, else why not."""
    planned: int | None = None
    """Steps that were planned; None: those of the settings."""


def fit(job: Job) -> Trained:
    """Train and validate; write metrics, curves, a checkpoint, and the best model so far.

    When is told in [stochnorm.training.writer.Writer][].

    Raises:
        FloatingPointError: The loss is not finite, or a logit of a validation image; or the training has collapsed.
        ValueError: The checkpoint to resume from is damaged, or was written by another number of processes.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; a checkpoint of the last complete step is written.
    """
    config, fabric, run, train = job.config, job.fabric, job.run, job.splits["train"]
    network = job.classifier.model
    more = trained_groups(job.objective.regularizers, config.lr)  # they begin pre-trained, as the backbone does
    optimizer: Any = make_optimizer(config, job.classifier, more, on_gpu=_on_gpu(job))
    model, optimizer = fabric.setup(compiled(network) if config.compile else network, optimizer)
    average = Average(network, config.ema) if config.ema else None
    rates = Rates(optimizer, fabric.device if _on_gpu(job) else None)
    # precision: the loss scale of float16; nothing otherwise.
    stateful = {"model": model, "optimizer": optimizer, "precision": fabric._precision}
    stateful |= {} if average is None else {"average": average}
    stateful |= trained_terms(job.objective.regularizers)
    state: dict[str, Any] = {"step": 0, "history": [], "sums": {}, "processes": fabric.world_size}
    if config.resume and run.checkpoint.is_file():
        state = load_checkpoint(fabric, run, stateful)
    state |= {**stateful, "begun_with": job.precision._asdict(), "run": run.identity}
    seconds = state["sums"].pop("seconds", 0.0)

    per_epoch = len(train) // config.batch_size
    eval_every = config.eval_every_used(len(train))
    steps = range(state["step"], config.steps)
    batches = batches_for(
        train,
        config.batch_size,
        seed=config.seed,
        workers=config.workers,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        device=fabric.device,
    )
    step = TrainingStep(
        config,
        job.objective,
        fabric,
        model,
        rates,
        batches.make,
        masks=_joint_masks(job),
        average=average,
        step=steps.start,
        sums=state["sums"],
    )
    sums, train_step, keep_pace = step.sums, _in_graph(job, step), pace_of(fabric.device)
    kept = nullcontext if average is None else average.applied
    writer = Writer(job, state, kept)
    job.objective.forget()
    with (
        job.trackers.recording(state["history"]),
        stop_signal() as stop,
        job.display.training(config.steps, per_epoch, state["step"]) as bars,
        _explained(job),
        writer.rescuing(),
        explained(config.backbone) if config.compile else nullcontext(),
    ):
        for record in state["history"]:
            bars.validated(record)
        if _verdict(job, state["history"]).ends():  # a run that is resumed
            steps = steps[:0]
        start = time.perf_counter()
        for number, inputs in zip(steps, batches.inputs(steps), strict=True):
            train_step(number, inputs)
            keep_pace()
            state["step"] = number + 1
            validates = state["step"] % eval_every == 0 or state["step"] == config.steps
            reading = sums.read() if validates else sums.poll()
            seconds += time.perf_counter() - start
            if reading is not None:
                bars.advance(reading.step - 1, reading.sums | {"seconds": seconds})
            if reading is not None and validates:
                lr = config.lr * step.decay(number)
                record = _training_record(job, state, reading.sums | {"seconds": seconds}, per_epoch, lr)
                if fabric.is_global_zero:
                    with kept():
                        _validate(job, record)
                    job.objective.forget()
                    bars.validated(record)
                state |= {"history": [*state["history"], record], "sums": {}}
                sums.clear()
                seconds = 0.0
                verdict = _verdict(job, state["history"])
                writer.validated(ends=verdict.enough)
                if verdict.ends():
                    break
            if state["step"] < config.steps and _stops(job, stop, number):
                state["sums"] = sums.read().sums | {"seconds": seconds}
                writer.write()
                raise KeyboardInterrupt(f"stopped after step {number + 1} of {config.steps}; checkpoint in {run.path}")
            start = time.perf_counter()
    return Trained(state["history"], train_step.facts)


def _verdict(job: Job, history: list[dict[str, Any]]) -> Verdict:
    """Return whether the training ends here. The first process, which validates, tells the others."""
    known = history and job.fabric.is_global_zero
    found = judge(history, job.config, len(job.task.classes), job.splits["val"].targets) if known else Verdict()
    return job.fabric.broadcast(found)


def _on_gpu(job: Job) -> bool:
    return job.fabric.device.type == "cuda"


def _joint_masks(job: Job) -> JointMasks | None:
    """Return what draws the masks of all layers on a GPU; None where compiled code or several processes draw them."""
    has_masks = any(isinstance(layer, _StochNorm) for layer in job.classifier.model.modules())
    if not (_on_gpu(job) and has_masks) or job.config.compile or job.fabric.world_size > 1:
        return None
    return JointMasks(job.classifier.model)


def _in_graph(job: Job, step: TrainingStep) -> CapturedStep:
    """Return the step, in a CUDA graph if nothing forbids it; on a GPU, show why not."""
    reason, device = obstacle(step), job.fabric.device
    if reason and device.type == "cuda":
        job.display.note(f"training steps run without a CUDA graph: {reason}")
    graph = None if reason else CudaGraph(device)
    return CapturedStep(step, graph, reason, job.display.note)


def _stops(job: Job, stop: threading.Event, step: int) -> bool:
    """Return whether the run stops after this step. Processes on GPUs ask each other seldom, since that waits."""
    fabric = job.fabric
    if fabric.world_size > 1 and fabric.device.type != "cpu" and (step + 1) % _ASK_EVERY:
        return False
    return agreed(fabric, stop.is_set())


@contextmanager
def _explained(job: Job) -> Iterator[None]:
    """Say in the error about a value that is not finite, or about a collapse, what to do."""
    try:
        yield
    except FloatingPointError as error:
        lr, what = job.config.lr, "collapsed" if isinstance(error, CollapsedError) else "diverged"
        raise type(error)(
            f"{error}: training {what} with lr {lr:g} ({job.config.method}); try --lr {rate_to_try(lr):g}. The results "
            f"up to the last validation are kept in {job.run.path}"
        ) from error


def _training_record(
    job: Job, state: dict[str, Any], sums: dict[str, float], per_epoch: int, lr: float
) -> dict[str, Any]:
    """Return the means since the last validation."""
    score = job.task.score
    means = {name: value / sums["images"] for name, value in sums.items()}
    before = state["history"][-1]["seconds"] if state["history"] else 0.0
    return {
        "step": state["step"],
        "epoch": round(state["step"] / per_epoch, 2),
        "lr": lr,
        "score": score,
        "train_loss": means["loss"],
        **({f"train_{score}": means["score"]} if "score" in means else {}),
        **{name: mean for name, mean in means.items() if name.startswith("penalty_")},
        "images_per_second": job.fabric.world_size * sums["images"] / sums["seconds"],
        "seconds": before + sums["seconds"],
    }


def _validate(job: Job, record: dict[str, Any]) -> None:
    """Add the validation metrics to the record."""
    config, task = job.config, job.task
    wanted = ("loss", task.score, "mean_per_class")
    if not job.counts["val"]:
        record |= {f"val_{key}": None for key in wanted[:2]}
        return
    try:
        _, metrics = evaluate_split(
            job.classifier,
            job.splits["val"],
            job.fabric,
            batch_size=config.batch_size,
            workers=config.workers,
            task=task,
        )
    except FloatingPointError as error:
        raise FloatingPointError(f"{error} after step {record['step']}") from error
    record |= {f"val_{key}": metrics[key] for key in wanted if key in metrics}
