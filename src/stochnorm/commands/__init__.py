"""The commands: their arguments and what they do, by the Python API. Heavy imports wait for right arguments."""

from stochnorm.commands.comparing import Compare, Paper, Report
from stochnorm.commands.datasets import Download, Lists, Verify
from stochnorm.commands.looking import Doctor, List
from stochnorm.commands.training import Demo, Evaluate, Finetune, Predict, Tune

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
