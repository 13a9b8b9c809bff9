"""Fine-tuning, the main job: from settings to a tested model."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.synonyms import meant
from stochnorm.training.auto.auto import auto
from stochnorm.training.folds.cross_validate import cross_validate
from stochnorm.training.kept.several import runs_of, several
from stochnorm.training.train import Result, train

__all__ = ["Result", "finetune"]


def finetune(
    config: FinetuneConfig | str | os.PathLike[str],
    *,
    quiet: bool = False,
    test: bool = True,
    validated: Callable[[dict[str, Any]], None] | None = None,
    **settings: Any,
) -> Result:
    """Fine-tune a pre-trained backbone, keep the best validation checkpoint or the last step, and test it once.

    Method `auto`, the default, tries several ways within a budget of time and keeps the best on validation images.
    With `folds` every image is tested by a model that has not seen it, and the model that is kept is one of all images.

    Leaves a run directory, see [stochnorm.runs.directory.Run][]. Ctrl-C and SIGTERM write a checkpoint after the
    current step; the same call with `resume=True` continues from it and, on the CPU or with `deterministic`, ends with
    the same weights bit for bit. Under `torchrun` every process trains on its share of each batch.

    Args:
        config: The images, as in [stochnorm.FinetuneConfig][], or all settings.
        quiet: Print nothing.
        test: Score the kept model on test images; False leaves them unread, for a search.
        validated: Called with the record of each validation.
        settings: Settings by name, such as `method="stochnorm", steps=100`; they replace those of `config`.

    Returns:
        The result. With `resume`, that of a finished run at once.

    Raises:
        ValueError: Settings, data or weights that cannot work, or a setting that the method does not use; or a network
            that `compile` or `deterministic` cannot run; the message says which and what to do.
        TypeError: There is no such setting, or the images are no path.
        FileNotFoundError: There are no such data or weights.
        ModuleNotFoundError: A tracker in `log` needs a package that is not installed.
        FileExistsError: The run directory is in use, or another process works on it.
        FloatingPointError: The loss, or a logit of a validation or test image, is not finite.
        KeyboardInterrupt: The run was stopped; its checkpoint is written.

    Example:
        >>> finetune("photos/", method="stochnorm", p=0.5, steps=300).test["top1"]  # doctest: +SKIP
        87.5
    """
    config = _settings(config, settings)
    several_runs = several if runs_of(config) > 1 else train
    work = auto if config.method == "auto" else several_runs
    if config.folds:
        if not test:
            raise ValueError(f"folds {config.folds} test every image, so test=False has no place; set folds=0")
        return cross_validate(config, work, quiet=quiet, validated=validated)
    return work(config, quiet=quiet, test=test, validated=validated)


def _settings(config: FinetuneConfig | str | os.PathLike[str], settings: dict[str, Any]) -> FinetuneConfig:
    """Return the settings of a run, from its images or other settings, and those given by name."""
    known = [f.name for f in fields(FinetuneConfig)]
    if unknown := sorted(settings.keys() - set(known)):
        raise TypeError(
            f"unknown setting {unknown[0]}{meant(unknown[0], known)}; settings are the fields of FinetuneConfig"
        )
    if isinstance(config, FinetuneConfig):
        return replace(config, **settings)
    if not isinstance(config, (str, os.PathLike)):
        raise TypeError(
            f"the images must be a path: a folder with a folder per class, a CSV file, or the name of a data set; got "
            f"{type(config).__name__}; write the images into such a folder, since a run names its images by their files"
        )
    return FinetuneConfig(os.fspath(config), **settings)
