"""Reproduce the paper's tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from stochnorm.cli.options import ExecutorName, Workers
from stochnorm.paper import NAMES

__all__ = ["Paper"]

_Name = tyro.extras.literal_type_from_choices([*NAMES, "all"])


@dataclass(frozen=True)
class Paper:
    """Reproduce a table or figure of the paper and compare it with the published numbers."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(constructor=_Name)]
    """Experiment (see stochnorm ls experiments), or all of them."""
    data_root: str = ""
    """Folder of the data sets in their official formats, one subfolder each."""
    scale: Literal["paper", "small"] = "paper"
    """paper: the paper's settings, hours to days on a GPU.
    small: every cell with tiny networks, few images and two steps, minutes on a CPU; the numbers mean nothing;
    without --data-root on generated images."""
    weights: str = "pretrained"
    """ImageNet weights: pretrained downloads them;
    or a file, or a folder with one file per backbone, such as resnet50-0676ba61.pth."""
    repeats: int = 0
    """Runs per cell; 0 for five as in the paper, two at small scale."""
    trials: int | None = None
    """Trials of a search for the strengths of the regularizers on a fifth of the training images, as the paper selects
    them; 0: the strengths of the released code, and all images train; None: 8, at small scale no search."""
    workers: Workers = 0
    executor: ExecutorName = "local"
    out: str = ""
    """Output directory; empty for runs/paper, or runs/paper-small.
    All experiments may share it: a run that two of them need is trained once. Rerun the command to resume."""

    estimate: bool = False
    """Train nothing: print the hours on this machine, from speeds that are measured in a few minutes."""

    def run(self) -> None:
        names = NAMES if self.name == "all" else (self.name,)
        if self.estimate:
            from stochnorm.paper.estimate import estimate, show_estimate
            from stochnorm.terminal import Terminal

            result = estimate(names, scale=self.scale, repeats=self.repeats, workers=self.workers)
            show_estimate(Terminal(), result)
            return

        from stochnorm.paper.reproduce import reproduce

        errors = []
        for name in names:
            try:
                reproduce(
                    name,
                    data_root=self.data_root,
                    scale=self.scale,
                    weights=self.weights,
                    out=self.out,
                    repeats=self.repeats,
                    trials=self.trials,
                    workers=self.workers,
                    executor_name=self.executor,
                )
            except (ValueError, OSError) as error:
                if self.name != "all":
                    raise
                errors.append(f"{name}: {error}")
        if errors:
            raise ValueError("; ".join(errors))
