"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from tyro.conf import Positional, arg

from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.presets import PRESETS, preset_settings

__all__ = [
    "Data",
    "Device",
    "ExecutorName",
    "Overwrite",
    "Preset",
    "Reference",
    "RunOptions",
    "RunPath",
    "Strict",
    "Workers",
]

Data: TypeAlias = Annotated[str, Positional, arg(metavar="DATA", help="Images, in a layout that finetune reads.")]
Device: TypeAlias = Annotated[Literal["auto", "cpu", "cuda", "mps"], arg(help="Device to compute on.")]
ExecutorName: TypeAlias = Annotated[
    Literal["local", "ray"],
    arg(help="Processes on this machine, or a Ray cluster (that of RAY_ADDRESS, or a new one on this machine)."),
]
Overwrite: TypeAlias = Annotated[bool, arg(help="Replace files that stochnorm did not write, too.")]
Preset: TypeAlias = Annotated[
    str, arg(help=f"Named set of default settings: {', '.join(PRESETS)} (stochnorm ls presets); empty for none.")
]
Reference: TypeAlias = Annotated[str, arg(help="Method that the others are compared with.")]
RunPath: TypeAlias = Annotated[str, Positional, arg(metavar="RUN")]
Strict: TypeAlias = Annotated[bool, arg(help="Stop at an unreadable image, instead of skipping it with a warning.")]
Workers: TypeAlias = Annotated[
    int, arg(help="Runs at a time; 0 for one per GPU (up to four if the runs are small), or one per core without GPUs.")
]


@dataclass(frozen=True)
class RunOptions(FinetuneConfig):
    """The settings of a run as options of a command.

    A command that adds options declares them in a second base class with `kw_only=True`. Python collects the fields of
    the last base first, so `--help` lists the added options before the many settings of a run.
    """

    def __post_init__(self) -> None:
        """Check no range: tyro would print its own message. `config` checks, so that an error is one line."""

    @classmethod
    def preset_defaults(cls, preset: str) -> dict[str, Any]:
        """Return the values of a preset that become defaults of the command.

        Raises:
            ValueError: There is no such preset.
        """
        return preset_settings(preset)

    def config(self) -> FinetuneConfig:
        """Return the settings alone.

        Raises:
            ValueError: A value is out of its range.
        """
        return FinetuneConfig(**self.as_fields())
