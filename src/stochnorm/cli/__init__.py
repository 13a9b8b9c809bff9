"""The commands: their arguments and what they do, by the Python API. Heavy imports wait for right arguments."""

from stochnorm.cli.compare import Compare, Paper, Report
from stochnorm.cli.data import Download, Lists, Verify
from stochnorm.cli.doctor import Doctor, List
from stochnorm.cli.finetune import Demo, Evaluate, Finetune, Predict, Tune

__all__ = [
    "Compare",
    "Demo",
    "Doctor",
    "Download",
    "Evaluate",
    "Finetune",
    "List",
    "Lists",
    "Paper",
    "Predict",
    "Report",
    "Tune",
    "Verify",
]
