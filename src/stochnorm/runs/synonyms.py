"""What other tools call the settings of a run."""

from __future__ import annotations

import difflib
from collections.abc import Collection

__all__ = ["SYNONYMS", "meant"]

SYNONYMS = {
    "learning_rate": "lr",
    "batch": "batch_size",
    "bs": "batch_size",
    "train_batch_size": "batch_size",
    "img_size": "image_size",
    "imgsz": "image_size",
    "size": "image_size",
    "input_size": "image_size",
    "model": "backbone",
    "arch": "backbone",
    "architecture": "backbone",
    "wd": "weight_decay",
    "smoothing": "label_smoothing",
    "num_workers": "workers",
    "iterations": "steps",
    "max_steps": "steps",
    "output": "out",
    "output_dir": "out",
    "opt": "optimizer",
    "early_stopping": "patience",
    "kfold": "folds",
    "amp": "precision",
}
"""The setting that each name stands for. The command line takes these names too."""

_EPOCHS = "steps: an epoch is images / batch size steps, so 10 epochs of 200 images in batches of 32 are 62"


def meant(name: str, known: Collection[str]) -> str:
    """Return what to add to a message about an unknown setting: a hint, or nothing.

    Example:
        >>> meant("learning_rate", ["lr", "steps"]), meant("stepps", ["lr", "steps"]), meant("moon", ["lr"])
        (', did you mean lr?', ', did you mean steps?', '')
    """
    if name in ("epochs", "num_epochs", "max_epochs") and "steps" in known:
        return f"; training is counted in {_EPOCHS}"
    near = difflib.get_close_matches(name, known, n=1)
    hint = SYNONYMS.get(name, near[0] if near else "")
    return f", did you mean {hint}?" if hint in known else ""
