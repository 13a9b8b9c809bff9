"""What the folds say together: the predictions of all images, their metrics, and the spread over the folds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stochnorm.data import Row, encode_labels
from stochnorm.evaluation.auc_by_fold import auc_by_fold
from stochnorm.evaluation.result import Evaluation
from stochnorm.evaluation.tasks import MultiLabel, Task
from stochnorm.runs.directory import Run
from stochnorm.runs.predictions import Predictions, read_predictions
from stochnorm.text import count

__all__ = ["fold_facts", "in_words", "pool", "spread"]

_ROUNDED = 5e-7  # half of the last decimal of a probability in a file


def pool(folds: Sequence[Run], rows: Mapping[str, Row], task: Task, *, multi_label: bool) -> Evaluation:
    """Return the evaluation of all images, each predicted by the fold that has not seen it.

    The metrics are those of the probabilities in the folds' `test_predictions.csv`, six decimals. The loss is the mean
    over the images of the losses in their results. AUC is that of [stochnorm.evaluation.auc_by_fold.auc_by_fold][], and
    average precision the mean over the folds.

    Args:
        folds: Finished runs, each with its own test images.
        rows: The images by path.
        task: The kind of labels.
        multi_label: Whether an image has any number of labels.

    Raises:
        ValueError: A file of a fold is damaged.
    """
    parts = [read_predictions(run.predictions, multi_label=multi_label, probabilities=True) for run in folds]
    columns = [(*column, number) for number, part in enumerate(parts) for column in _columns(part)]
    columns.sort(key=lambda image: image[0])
    paths, truth, predicted, probabilities, of = (list(values) for values in zip(*columns, strict=True))
    found = torch.tensor(probabilities, dtype=torch.float64)
    targets = encode_labels([rows[path].label for path in paths], task.classes, multi_label=multi_label)
    groups = [rows[path].group for path in paths] if any(row.group for row in rows.values()) else None
    tests = [run.read_result()["test"] for run in folds]
    if isinstance(task, MultiLabel):
        metrics = replace(task, resamples=0).metrics(_logits(found, predicted, task), targets, groups=groups)
        precisions = [test["average_precision"] for test in tests if test["average_precision"] is not None]
        metrics |= auc_by_fold(found, targets, torch.tensor(of), groups=groups)
        metrics["average_precision"] = statistics.fmean(precisions) if precisions else None
    else:
        metrics = task.metrics(_logits(found, predicted, task), targets, groups=groups)
    metrics["loss"] = sum(test["loss"] * test["images"] for test in tests) / sum(test["images"] for test in tests)
    return Evaluation("folds", metrics, task.classes, paths, truth, predicted, found, multi_label)


def fold_facts(number: int, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of the result of a fold."""
    score, test, validation = result["score"], result["test"], result["validation"]
    step, chosen = result["selected"]["step"], result["method"].get("chosen")
    return {
        "fold": number,
        "images": test["images"],
        score: test[score],
        "interval": test.get(f"{score}_interval"),
        "validation": validation[score],
        "kept": chosen or (f"step {step}" if step else f"C = {result['probe']['strength']:g}"),
        "seconds": result["cost"]["seconds"],
    }


def spread(parts: Sequence[Mapping[str, Any]], score: str) -> dict[str, float | None]:
    """Return mean and sample standard deviation of the folds' scores; None where they are undefined.

    Example:
        >>> spread([{"top1": 70.0}, {"top1": 80.0}, {"top1": 90.0}], "top1")
        {'mean': 80.0, 'std': 10.0}
    """
    known = [part[score] for part in parts if part[score] is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
    }


def in_words(parts: Sequence[Mapping[str, Any]], title: str, final: Mapping[str, Any]) -> dict[str, str]:
    """Return, in a sentence each, what the estimate is of, and which model is kept.

    Args:
        parts: Facts of the folds, as [stochnorm.training.folds.pooled.fold_facts][] returns them.
        title: Name of the score.
        final: Result of the model that is kept.
    """
    score, counts = final["score"], final["images"]
    known = [part[score] for part in parts if part[score] is not None]
    deviation = spread(parts, score)["std"]
    between = f"; by fold {min(known):.1f} to {max(known):.1f} % {title}" if known else ""
    between += f", standard deviation {deviation:.1f} points" if deviation is not None else ""
    images, folds = sum(part["images"] for part in parts), len(parts)
    seen = f"trained on {counts['train']:,} images and validated on the other {counts['val']:,}"
    if final.get("probe", {}).get("fitted_on") == "train and validation":
        seen = f"fitted on all {counts['train'] + counts['val']:,} images"
    return {
        "estimate": f"each of {count(images, 'image')} is predicted by the one of {folds} models that has not seen "
        f"it{between}",
        "model": f"the model that is kept is one more, of the same settings, {seen}; the models of the folds had "
        f"{100 * (1 - 1 / folds):.0f} % of the images, so the estimate is a little low rather than high",
    }


def _columns(part: Predictions) -> list[tuple[str, str, str, list[float]]]:
    assert part.probabilities is not None
    return list(zip(part.paths, part.truth, part.predicted, part.probabilities.tolist(), strict=True))


def _logits(probabilities: Tensor, predicted: Sequence[str], task: Task) -> Tensor:
    """Return logits of these probabilities; where rounding made a tie, that of the predicted class is the largest."""
    if task.score != "top1":
        return probabilities.clamp(_ROUNDED, 1 - _ROUNDED).logit()
    logits = probabilities.clamp(min=_ROUNDED).log()
    place = {name: i for i, name in enumerate(task.classes)}
    chosen = torch.tensor([[place[name]] for name in predicted])
    return logits.scatter_add(1, chosen, torch.full_like(chosen, 1, dtype=logits.dtype) * _ROUNDED)
