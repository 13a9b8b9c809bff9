"""Fine-tune one model."""

from __future__ import annotations

from dataclasses import dataclass

from stochnorm.cli.options import Preset, RunOptions

__all__ = ["Finetune"]


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """The options of `finetune` that are no settings of a run."""

    preset: Preset = ""
    settings: str = ""
    """JSON file of default settings: chosen.json of stochnorm tune, or a run's config.json."""


@dataclass(frozen=True)
class Finetune(RunOptions, FinetuneOptions):
    """Fine-tune a backbone on your images; keep the best validation checkpoint; score it on test images."""

    def run(self) -> None:
        config = self.config()
        if self.settings:
            config = config.without_unused()  # of the file's method, where the command line names another one

        from stochnorm.training.finetune import finetune

        finetune(config)
