"""The training loop, written once."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.config import FinetuneConfig
from stochnorm.data import Split
from stochnorm.data.splits import derive_seed
from stochnorm.display import Display
from stochnorm.evaluate import evaluate
from stochnorm.interrupt import agreed, stop_signal
from stochnorm.models import Classifier, save_classifier
from stochnorm.plots import plot_curves
from stochnorm.runs import Run

__all__ = ["fit", "score"]

_MOST_EVALUATIONS = 15


def fit(
    config: FinetuneConfig, fabric: Fabric, run: Run, display: Display, classifier: Classifier, train: Split, val: Split
) -> list[dict[str, Any]]:
    """Train; at each validation write metrics, curves, a checkpoint, and the model if it is the best so far.

    Returns:
        A record per validation. (In other processes than the first one, without its validation metrics.)

    Raises:
        FloatingPointError: The loss is not finite.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; a checkpoint of the last whole step is written.
    """
    network = classifier.model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        classifier.parameter_groups(config.lr, config.head_lr_factor),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
    )
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    model, optimizer = fabric.setup(network, optimizer)
    state: dict[str, Any] = {"model": model, "optimizer": optimizer, "step": 0, "history": [], "sums": [0.0] * 4}
    if config.resume and run.checkpoint.is_file():
        state |= fabric.load(run.checkpoint, {"model": model, "optimizer": optimizer}, weights_only=True)

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
    with stop_signal() as stop, display.training(config.steps, per_epoch, state["step"]) as bars:
        for record in state["history"]:
            bars.validated(record)
        start = time.perf_counter()
        for images, labels in batches:
            step = state["step"]
            # Masks and dropout are functions of seed, step and process, so that a resumed run draws the same.
            torch.manual_seed(derive_seed("step", config.seed, step, fabric.global_rank))
            decay = 0.1 if step >= config.decay_at * config.steps else 1.0
            for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = lr * decay
            _set_training_mode(network, config.norm)
            labels = labels.to(fabric.device)
            logits = model(classifier.preprocessing.normalize(images.to(fabric.device)))
            loss = nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()

            now = time.perf_counter()
            correct = float((logits.argmax(1) == labels).sum())
            news = (_finite(loss, step, config, run) * len(labels), correct, len(labels), now - start)
            state |= {"step": step + 1, "sums": [a + b for a, b in zip(state["sums"], news, strict=True)]}
            bars.advance(step, *state["sums"])
            if state["step"] % eval_every == 0 or state["step"] == config.steps:
                record = _training_record(state, per_epoch, config.lr * decay, fabric.world_size)
                if fabric.is_global_zero:
                    _validate(record, state, config, fabric, run, classifier, val)
                    bars.validated(record)
                state |= {"history": [*state["history"], record], "sums": [0.0] * 4}
                _save_checkpoint(fabric, run, state)
            if state["step"] < config.steps and agreed(fabric, stop.is_set()):
                _save_checkpoint(fabric, run, state)
                raise KeyboardInterrupt(f"stopped after step {step + 1} of {config.steps}; checkpoint in {run.path}")
            start = time.perf_counter()
    history: list[dict[str, Any]] = state["history"]
    return history


def score(record: dict[str, Any]) -> tuple[float, float]:
    """Models are selected by validation accuracy; ties by loss."""
    return record["val_top1"], -record["val_loss"]


def _set_training_mode(network: nn.Module, norm: str) -> None:
    network.train()
    if norm == "frozen":
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def _finite(loss: Tensor, step: int, config: FinetuneConfig, run: Run) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the loss is {value} at step {step + 1}: training diverged with lr {config.lr:g}; "
            f"try --lr {config.lr / 10:g}. What was written up to the last validation is kept in {run.path}"
        )
    return value


def _training_record(state: dict[str, Any], per_epoch: int, lr: float, world_size: int) -> dict[str, Any]:
    """The means since the last validation."""
    loss, correct, images, seconds = state["sums"]
    before = state["history"][-1]["seconds"] if state["history"] else 0.0
    return {
        "step": state["step"],
        "epoch": round(state["step"] / per_epoch, 2),
        "lr": lr,
        "train_loss": loss / images,
        "train_top1": 100 * correct / images,
        "images_per_second": world_size * images / seconds,
        "seconds": before + seconds,
    }


def _validate(
    record: dict[str, Any],
    state: dict[str, Any],
    config: FinetuneConfig,
    fabric: Fabric,
    run: Run,
    classifier: Classifier,
    val: Split,
) -> None:
    """Adds the validation metrics to the record and writes what a validation writes, but the checkpoint."""
    _, metrics = evaluate(classifier, val, fabric, batch_size=config.batch_size, workers=config.workers)
    record |= {f"val_{key}": metrics[key] for key in ("loss", "top1", "mean_per_class")}
    if all(score(record) > score(earlier) for earlier in state["history"]):
        save_classifier(run.model, classifier, {"norm": config.norm, "step": record["step"]})
    history = [*state["history"], record]
    run.write_metrics(history)
    plot_curves(history, run.path / "curves")


def _save_checkpoint(fabric: Fabric, run: Run, state: dict[str, Any]) -> None:
    """All processes call it; the first one writes, atomically."""
    temporary = run.checkpoint.with_suffix(".tmp")
    try:
        fabric.save(temporary, state)
        if fabric.is_global_zero:
            temporary.replace(run.checkpoint)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {run.checkpoint}: {error.strerror}; free some space") from error
    finally:
        if fabric.is_global_zero:
            temporary.unlink(missing_ok=True)
