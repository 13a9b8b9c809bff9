"""Choose the settings of a method on validation images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Suppress, arg

from stochnorm.cli.options import Preset, RunOptions
from stochnorm.runs.settings import METHOD_HELP

__all__ = ["Tune"]


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """The options of a search in addition to the settings of its trials."""

    preset: Preset = ""
    trials: int = 20
    """Total number of trials. Rerun the command to resume."""
    storage: str = ""
    """URL of Optuna's storage, to share a search between machines; empty for an SQLite file in the search directory."""
    prune: bool = True
    """Stop trials that score below the median of the other trials at the same step."""


@dataclass(frozen=True)
class Tune(RunOptions, TuneOptions):
    """Choose learning rate, strengths and p of a method on validation images; test images are not used."""

    method: Annotated[str, arg(help=METHOD_HELP)] = "stochnorm"
    folds: Suppress[int] = 0  # of finetune alone
    resume: Suppress[bool] = False  # always on
    overwrite: Suppress[bool] = False  # would delete hours of trials; remove the directory instead
    report: Suppress[bool] = True  # for the chosen settings; trials have none

    def run(self) -> None:
        config = self.config()
        config.check_used()

        from stochnorm.tuning.tune import tune

        tune(config, trials=self.trials, storage=self.storage, prune=self.prune)
