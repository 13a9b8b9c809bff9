"""The training loop, written once."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from stochnorm.data.images.stream import send
from stochnorm.data.splits import derive_seed
from stochnorm.evaluation.logits import evaluate_split
from stochnorm.models import save_classifier
from stochnorm.nn import schedule, set_p
from stochnorm.runs.interrupt import agreed, stop_signal
from stochnorm.training.checkpoint import load_checkpoint, save_checkpoint
from stochnorm.training.curves import plot_curves
from stochnorm.training.job import Job

__all__ = ["fit", "selected"]

_MOST_EVALUATIONS = 15
_DRAW_EVERY = 20.0  # seconds of training between pictures of the curves


def fit(job: Job) -> list[dict[str, Any]]:
    """Train; at each validation write metrics, curves, a checkpoint, and the model if it is the best one so far.

    Returns:
        A record per validation. In other processes than the first one they lack the validation metrics.

    Raises:
        FloatingPointError: The loss is not finite, or a logit of a validation image.
        ValueError: The checkpoint to resume from is damaged, or was written by another number of processes.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; a checkpoint of the last complete step is written.
    """
    config, fabric, run = job.config, job.fabric, job.run
    network, train = job.classifier.model, job.splits["train"]
    optimizer = _optimizer(job)
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    model, optimizer = fabric.setup(network, optimizer)
    # precision: the loss scale of float16; nothing otherwise.
    stateful = {"model": model, "optimizer": optimizer, "precision": fabric._precision}
    state: dict[str, Any] = {"step": 0, "history": [], "sums": {}, "processes": fabric.world_size}
    if config.resume and run.checkpoint.is_file():
        state = load_checkpoint(fabric, run, stateful)
    state |= {**stateful, "begun_with": job.precision._asdict()}

    per_epoch = len(train) // config.batch_size
    eval_every = config.eval_every or max(per_epoch, math.ceil(config.steps / _MOST_EVALUATIONS))
    batches = train.training_batches(
        config.batch_size,
        range(state["step"], config.steps),
        seed=config.seed,
        workers=config.workers,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        device=fabric.device,
    )
    with (
        job.trackers.recording(state["history"]),
        stop_signal() as stop,
        job.display.training(config.steps, per_epoch, state["step"]) as bars,
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
            sums = _gradients(job, model, optimizer, images, targets)
            _check_finite(job, sums["total"], step)
            optimizer.step()

            sums["seconds"] = time.perf_counter() - start
            state |= {"step": step + 1, "sums": {k: state["sums"].get(k, 0.0) + v for k, v in sums.items()}}
            bars.advance(step, state["sums"])
            if state["step"] % eval_every == 0 or state["step"] == config.steps:
                record = _training_record(job, state, per_epoch, config.lr * decay)
                if fabric.is_global_zero:
                    _validate(job, record, state)
                    bars.validated(record)
                state |= {"history": [*state["history"], record], "sums": {}}
                save_checkpoint(fabric, run, state)
                job.trackers.log(record)  # after the checkpoint, so that a resumed run never logs a step twice
                if job.validated is not None and fabric.is_global_zero:
                    job.validated(record)
            if state["step"] < config.steps and agreed(fabric, stop.is_set()):
                save_checkpoint(fabric, run, state)
                raise KeyboardInterrupt(f"stopped after step {step + 1} of {config.steps}; checkpoint in {run.path}")
            start = time.perf_counter()
    history: list[dict[str, Any]] = state["history"]
    return history


def selected(history: list[dict[str, Any]], select: str) -> dict[str, Any]:
    """Return the record of the model to keep: the last, or the first with the best validation score; ties by loss."""
    if select == "last":
        return history[-1]

    def rank(record: dict[str, Any]) -> tuple[float, float]:
        score = record[f"val_{record['score']}"]  # None: no finding has both positive and negative images
        return -math.inf if score is None else score, -record["val_loss"]

    return max(history, key=rank)


def _optimizer(job: Job) -> torch.optim.Optimizer:
    config = job.config
    groups = job.classifier.parameter_groups(
        config.lr, config.head_lr_factor, no_decay_norm_bias=not config.decay_norm_bias
    )
    return torch.optim.SGD(
        groups, momentum=config.momentum, weight_decay=config.weight_decay_used, nesterov=config.momentum > 0
    )


def _gradients(job: Job, model: Any, optimizer: Any, images: Tensor, targets: Tensor) -> dict[str, float]:
    """Run forward and backward over a batch, part by part; return sums over its images.

    The values of a part leave the device together, in one transfer.
    """
    fabric, parts = job.fabric, job.config.accumulate
    sums: dict[str, float] = {"images": len(images), "total": 0.0}
    optimizer.zero_grad()
    for number, (part, part_targets) in enumerate(
        zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True), start=1
    ):
        inputs = job.classifier.preprocessing.normalize(send(part, fabric.device))
        part_targets = send(part_targets, fabric.device)
        with fabric.no_backward_sync(model, enabled=number < parts):
            terms = job.objective(model, inputs, part_targets, share=len(part) / len(images))
            fabric.backward(terms.loss)
        values: dict[str, Tensor] = {f"penalty_{name}": penalty for name, penalty in terms.penalties.items()}
        values["loss"] = terms.task_loss
        score = job.task.batch_score(terms.logits.detach(), part_targets)
        values |= {} if score is None else {"score": score}
        *means, total = torch.stack([value.detach().float() for value in (*values.values(), terms.loss)]).tolist()
        for name, mean in zip(values, means, strict=True):
            sums[name] = sums.get(name, 0.0) + (100 * mean if name == "score" else mean) * len(part)
        sums["total"] += total
    return sums


def _check_finite(job: Job, loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise _diverged(job, f"the loss is {loss} at step {step + 1}")


def _diverged(job: Job, reason: str) -> FloatingPointError:
    lr = job.config.lr
    return FloatingPointError(
        f"{reason}: training diverged with lr {lr:g} ({job.config.method}); try --lr {lr / 10:g}. The results up to "
        f"the last validation are kept in {job.run.path}"
    )


def _training_record(job: Job, state: dict[str, Any], per_epoch: int, lr: float) -> dict[str, Any]:
    """Return the means since the last validation."""
    sums, score = state["sums"], job.task.score
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


def _validate(job: Job, record: dict[str, Any], state: dict[str, Any]) -> None:
    """Add the validation metrics to the record; write model, metrics and curves."""
    config, task, run = job.config, job.task, job.run
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
        raise _diverged(job, f"{error} after step {record['step']}") from error
    wanted = ("loss", task.score, "mean_per_class")
    record |= {f"val_{key}": metrics[key] for key in wanted if key in metrics}
    history = [*state["history"], record]
    chosen = selected(history, config.select)
    if chosen is record:
        save_classifier(run.model, job.classifier, {"method": config.method, "step": record["step"]})
    run.write_metrics(history)
    # Drawing takes longer than a short run's training between two validations.
    if state["step"] == config.steps or record["seconds"] >= state.get("drawn", 0.0) + _DRAW_EVERY:
        state["drawn"] = record["seconds"]
        plot_curves(history, chosen, task.score_title, run.curves)
