"""The training loop, written once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from stochnorm.data import Split
from stochnorm.data.splits import derive_seed
from stochnorm.evaluation.logits import evaluate_split
from stochnorm.files import atomic_path
from stochnorm.methods.catalogue import check_method
from stochnorm.models import save_classifier
from stochnorm.nn import schedule, set_p
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.runs.interrupt import agreed, stop_signal
from stochnorm.runs.trackers import Trackers
from stochnorm.training.curves import plot_curves
from stochnorm.training.display import Display
from stochnorm.training.objective import Objective

__all__ = ["fit", "selected", "weight_decay"]

_MOST_EVALUATIONS = 15
_DRAW_EVERY = 20.0  # seconds of training between pictures of the curves


def fit(
    config: FinetuneConfig,
    fabric: Fabric,
    run: Run,
    display: Display,
    objective: Objective,
    train: Split,
    val: Split,
    trackers: Trackers,
    validated: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Train; at each validation write metrics, curves, a checkpoint, and the model if it is the selected one so far.

    Args:
        config: The settings.
        fabric: Device, precision, processes.
        run: Where to write.
        display: Where to show.
        objective: The classifier and its loss.
        train: Training images.
        val: Validation images.
        trackers: Get the record of each validation, in the first process.
        validated: Called with the record of each validation, in the first process.

    Returns:
        A record per validation. (In other processes than the first one, without its validation metrics.)

    Raises:
        FloatingPointError: The loss is not finite, or the logits of a validation image.
        ValueError: The checkpoint to resume from is damaged, or was written by another number of processes.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; a checkpoint of the last whole step is written.
    """
    classifier = objective.classifier
    network = classifier.model
    optimizer = torch.optim.SGD(
        classifier.parameter_groups(config.lr, config.head_lr_factor, no_decay_norm_bias=not config.decay_norm_bias),
        momentum=config.momentum,
        weight_decay=weight_decay(config),
        nesterov=config.momentum > 0,
    )
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    model, optimizer = fabric.setup(network, optimizer)
    # precision: the loss scale of float16; nothing otherwise.
    stateful = {"model": model, "optimizer": optimizer, "precision": fabric._precision}
    state: dict[str, Any] = {"step": 0, "history": [], "sums": {}, "processes": fabric.world_size}
    if config.resume and run.checkpoint.is_file():
        state = _load_checkpoint(fabric, run, stateful)
    state |= stateful

    per_epoch = len(train) // config.batch_size
    eval_every = config.eval_every or max(per_epoch, math.ceil(config.steps / _MOST_EVALUATIONS))
    batches = train.training_batches(
        config.batch_size,
        range(state["step"], config.steps),
        seed=config.seed,
        workers=config.workers,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    with (
        trackers.recording(state["history"]),
        stop_signal() as stop,
        display.training(config.steps, per_epoch, state["step"]) as bars,
    ):
        for record in state["history"]:
            bars.validated(record)
        start = time.perf_counter()
        for images, targets in batches:
            step = state["step"]
            # Masks and dropout are functions of seed, step and process, so that a resumed run draws the same.
            torch.manual_seed(derive_seed("step", config.seed, step, fabric.global_rank))
            decay = 0.1 if step >= config.decay_at * config.steps else 1.0
            for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = lr * decay
            network.train()
            if config.p_schedule != "constant":
                set_p(network, schedule(config.p_schedule, config.p, config.p_end, step, config.steps))
            sums = _gradients(config, fabric, objective, model, optimizer, images, targets)
            _check_finite(sums["total"], step, config, run)
            optimizer.step()

            sums["seconds"] = time.perf_counter() - start
            state |= {"step": step + 1, "sums": {k: state["sums"].get(k, 0.0) + v for k, v in sums.items()}}
            bars.advance(step, state["sums"])
            if state["step"] % eval_every == 0 or state["step"] == config.steps:
                record = _training_record(state, objective, per_epoch, config.lr * decay, fabric.world_size)
                if fabric.is_global_zero:
                    _validate(record, state, config, fabric, run, objective, val)
                    bars.validated(record)
                state |= {"history": [*state["history"], record], "sums": {}}
                _save_checkpoint(fabric, run, state)
                trackers.log(record)  # after the checkpoint, so that a resumed run never logs a step twice
                if validated is not None and fabric.is_global_zero:
                    validated(record)
            if state["step"] < config.steps and agreed(fabric, stop.is_set()):
                _save_checkpoint(fabric, run, state)
                raise KeyboardInterrupt(f"stopped after step {step + 1} of {config.steps}; checkpoint in {run.path}")
            start = time.perf_counter()
    history: list[dict[str, Any]] = state["history"]
    return history


def selected(history: list[dict[str, Any]], select: str) -> dict[str, Any]:
    """The record of the model to keep: the last, or the first with the best validation score; ties by loss."""
    if select == "last":
        return history[-1]

    def rank(record: dict[str, Any]) -> tuple[float, float]:
        score = record[f"val_{record['score']}"]  # None: no finding has both positive and negative images
        return -math.inf if score is None else score, -record["val_loss"]

    return max(history, key=rank)


def weight_decay(config: FinetuneConfig) -> float:
    """As set, else none beside L2-SP and DELTA, whose penalties take its place (their authors), else the paper's."""
    if config.weight_decay is not None:
        return config.weight_decay
    return 0.0 if {"l2sp", "delta"} & set(check_method(config.method)) else 5e-4


def _gradients(
    config: FinetuneConfig,
    fabric: Fabric,
    objective: Objective,
    model: Any,
    optimizer: Any,
    images: Tensor,
    targets: Tensor,
) -> dict[str, float]:
    """Forward and backward over a batch, part by part; sums over its images."""
    sums: dict[str, float] = {"images": len(images), "total": 0.0}
    optimizer.zero_grad()
    parts = list(zip(images.tensor_split(config.accumulate), targets.tensor_split(config.accumulate), strict=True))
    for number, (part, part_targets) in enumerate(parts, start=1):
        inputs = objective.classifier.preprocessing.normalize(part.to(fabric.device))
        part_targets = part_targets.to(fabric.device)
        with fabric.no_backward_sync(model, enabled=number < len(parts)):
            terms = objective(model, inputs, part_targets, share=len(part) / len(images))
            fabric.backward(terms.loss)
        values = {f"penalty_{name}": float(penalty.detach()) for name, penalty in terms.penalties.items()}
        values["loss"] = float(terms.task_loss.detach())
        score = objective.task.batch_score(terms.logits.detach(), part_targets)
        values |= {} if score is None else {"score": score}
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value * len(part)
        sums["total"] += float(terms.loss.detach())
    return sums


def _check_finite(loss: float, step: int, config: FinetuneConfig, run: Run) -> None:
    if not math.isfinite(loss):
        raise _diverged(f"the loss is {loss} at step {step + 1}", config, run)


def _diverged(what: str, config: FinetuneConfig, run: Run) -> FloatingPointError:
    return FloatingPointError(
        f"{what}: training diverged with lr {config.lr:g} ({config.method}); try --lr {config.lr / 10:g}. "
        f"What was written up to the last validation is kept in {run.path}"
    )


def _training_record(
    state: dict[str, Any], objective: Objective, per_epoch: int, lr: float, world_size: int
) -> dict[str, Any]:
    """The means since the last validation."""
    sums, score = state["sums"], objective.task.score
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
        "images_per_second": world_size * sums["images"] / sums["seconds"],
        "seconds": before + sums["seconds"],
    }


def _validate(
    record: dict[str, Any],
    state: dict[str, Any],
    config: FinetuneConfig,
    fabric: Fabric,
    run: Run,
    objective: Objective,
    val: Split,
) -> None:
    """Adds the validation metrics to the record and writes what a validation writes, but the checkpoint."""
    classifier, task = objective.classifier, objective.task
    try:
        _, metrics = evaluate_split(
            classifier, val, fabric, batch_size=config.batch_size, workers=config.workers, task=task
        )
    except FloatingPointError as error:
        raise _diverged(f"{error} after step {record['step']}", config, run) from error
    wanted = ("loss", task.score, "mean_per_class")
    record |= {f"val_{key}": metrics[key] for key in wanted if key in metrics}
    history = [*state["history"], record]
    chosen = selected(history, config.select)
    if chosen is record:
        notes = {"method": config.method, "step": record["step"]}
        if "bin" in check_method(config.method):
            notes["normalization"] = "bin"
        save_classifier(run.model, classifier, notes)
    run.write_metrics(history)
    # Drawing takes longer than a short run's training between two validations.
    if state["step"] == config.steps or record["seconds"] >= state.get("drawn", 0.0) + _DRAW_EVERY:
        state["drawn"] = record["seconds"]
        plot_curves(history, chosen, task.score_title, run.curves)


def _save_checkpoint(fabric: Fabric, run: Run, state: dict[str, Any]) -> None:
    """All processes call it; the first one writes, atomically."""
    with atomic_path(run.checkpoint) if fabric.is_global_zero else nullcontext(run.checkpoint) as path:
        fabric.save(path, state)


def _load_checkpoint(fabric: Fabric, run: Run, stateful: dict[str, Any]) -> dict[str, Any]:
    """Restores model, optimizer and precision; returns the rest of the state."""
    try:
        state = fabric.load(run.checkpoint, dict(stateful), weights_only=True)
        processes = state["processes"]
    except Exception as error:  # whatever a parser makes of a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{run.checkpoint} cannot be read ({reason}); start anew with --overwrite") from error
    if processes != fabric.world_size:
        raise ValueError(
            f"cannot resume {run.path} with {fabric.world_size} processes: each draws its own masks and images, and "
            f"the run had {processes}; start as many, or start anew with --overwrite"
        )
    return state
