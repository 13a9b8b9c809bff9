"""What to do after a run, from what it shows."""

from __future__ import annotations

from stochnorm.report.page.details import Details
from stochnorm.text import count

__all__ = ["advice"]

_FEW = 100  # test images: an accuracy of 80 % is uncertain by 8 points each way
_RISE = 1.1  # of the lowest validation loss


def advice(details: Details) -> list[str]:
    """Return sentences that say what to do, the most useful first; empty where nothing stands out."""
    return [text for text in (_majority(details), _small_test(details), _pair(details), _overfit(details)) if text]


def _majority(details: Details) -> str:
    metrics = details.record.test or details.record.validation
    top1, majority = metrics.get("top1"), metrics.get("majority")
    if top1 is None or majority is None or top1 > majority:
        return ""
    return (
        f"The score is not above the {majority:.1f} % of always answering with the largest class. Give the classes "
        "equal weight with --balance, and look at recall and F1 instead of accuracy."
    )


def _small_test(details: Details) -> str:
    test = details.record.test
    if test is None or details.record.settings.get("folds") or test["images"] >= _FEW:
        return ""
    return (
        f"The test has {count(test['images'], 'image')}, so the score says little. --folds 5 tests every image by a "
        "model that has not seen it."
    )


def _pair(details: Details) -> str:
    if not details.pairs or details.pairs[0].images < 2:
        return ""
    pair = details.pairs[0]
    return (
        f"{pair.true} is taken for {pair.predicted} most often ({count(pair.images, 'time')}). Look whether these "
        "labels are right; then more photographs of both help most."
    )


def _overfit(details: Details) -> str:
    losses = [(each["step"], each["val_loss"]) for each in details.history if each.get("val_loss") is not None]
    if len(losses) < 3:
        return ""
    step, lowest = min(losses, key=lambda each: each[1])
    last_step, last = losses[-1]
    if step > last_step / 2 or last < _RISE * lowest:
        return ""
    return (
        f"The validation loss was lowest at step {step} ({lowest:.2f}) and rose to {last:.2f} at step {last_step}: the "
        "model learns the training images by heart. Fewer --steps, a lower --lr or --augment trivial are worth a try."
    )
