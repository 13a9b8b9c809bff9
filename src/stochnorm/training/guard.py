"""When a training ends before its last step: nothing better has come for long, or nothing has been learnt."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from stochnorm.runs.config import FinetuneConfig
from stochnorm.training.selection import selected

__all__ = ["CollapsedError", "Verdict", "chance_of", "collapsed", "judge", "out_of_patience", "rate_to_try"]

_LEAST_STEPS = 30  # a short run has not had the time to learn
_FROM = 0.25  # of the steps; the first ones may go astray
_CHANCE_AUC = 55.0  # percent; 50 with the noise of small splits


class CollapsedError(FloatingPointError):
    """A training is no better than chance, and its losses are above those of a head that knows nothing."""


class Verdict(NamedTuple):
    """Whether a training ends before its last step."""

    collapse: str = ""
    """What shows that it has collapsed; empty if it has not."""
    enough: bool = False
    """Whether its patience is at an end."""

    def ends(self) -> bool:
        """Return whether it ends by patience.

        Raises:
            CollapsedError: It has collapsed.
        """
        if self.collapse:
            raise CollapsedError(self.collapse)
        return self.enough


def judge(history: list[dict[str, Any]], config: FinetuneConfig, classes: int, targets: Tensor) -> Verdict:
    """Return the verdict after a validation: a function of the history, so that a resumed run gets the same.

    Args:
        history: The records of the validations, at least one.
        config: Steps and patience.
        classes: Number of classes.
        targets: Labels of the validation images: (n,) class numbers, or (n, findings) in {0, 1}.
    """
    several = targets.ndim == 2
    start = math.log(2 if several else classes) * (2 if config.balance else 1)  # weights at most double the loss
    majority = None if several or not len(targets) else targets.bincount().max().item() / len(targets)
    enough = out_of_patience(history, config.patience) and history[-1]["step"] < config.steps
    return Verdict(collapsed(history, config.steps, start, chance_of(classes, majority)), enough)


def chance_of(classes: int, majority: float | None) -> float:
    """Return the score up to which a model counts as no better than chance, in percent.

    Args:
        classes: Number of classes.
        majority: Share of the largest class in the validation images; None: several labels per image, whose score is
            the area under the ROC curve.

    Returns:
        One and a half times that of guessing, at most 10 points more, or the share of the largest class; 55 for AUC.

    Example:
        >>> chance_of(2, 0.5), chance_of(10, 0.2), chance_of(3, None)
        (60.0, 20.0, 55.0)
    """
    if majority is None:
        return _CHANCE_AUC
    guess = 100 / classes
    return max(min(1.5 * guess, guess + 10), 100 * majority)


def collapsed(history: list[dict[str, Any]], steps: int, start: float, chance: float) -> str:
    """Return what shows that a training has collapsed; empty if it has not.

    It has if, at two validations in a row or at the last one of the run, from a quarter of the steps and the 30th step
    on, the mean training loss since the validation before and the validation loss are above the loss of the start, and
    the validation score is no better than chance.

    Args:
        history: The records of the validations.
        steps: Number of steps of the run.
        start: Loss of a head that knows nothing.
        chance: Score of chance, in percent.
    """
    last = history[-1]
    seen = history[-1:] if last["step"] == steps else history[-2:]
    if last["step"] < steps and len(seen) < 2:
        return ""
    for record in seen:
        score = record[f"val_{record['score']}"]
        if record["step"] < max(_LEAST_STEPS, _FROM * steps) or score is None or score > chance:
            return ""
        if min(record["train_loss"], record["val_loss"]) <= start:
            return ""
    return (
        f"after step {last['step']} the training loss is {last['train_loss']:.3g} and the validation loss "
        f"{last['val_loss']:.3g}, above {start:.3g} of a head that knows nothing, and the validation score is "
        f"{last['val_' + last['score']]:.1f} %, no better than chance"
    )


def out_of_patience(history: list[dict[str, Any]], patience: int) -> bool:
    """Return whether the last `patience` validations brought nothing better; never if it is 0."""
    return 0 < patience < len(history) - history.index(selected(history, "best"))


def rate_to_try(lr: float) -> float:
    """Return the learning rate to try after a failure: a tenth, at most the default.

    Example:
        >>> rate_to_try(0.003), rate_to_try(1000.0)
        (0.0003, 0.003)
    """
    return min(float(f"{lr / 10:.3g}"), FinetuneConfig.lr)
