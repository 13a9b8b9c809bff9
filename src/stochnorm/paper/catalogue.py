"""The experiments by name."""

from importlib import import_module

from stochnorm.paper import NAMES
from stochnorm.paper.experiment import Experiment

__all__ = ["EXPERIMENTS"]

EXPERIMENTS: dict[str, Experiment] = {name: import_module(f"stochnorm.paper.{name}").EXPERIMENT for name in NAMES}
"""All experiments, in the paper's order."""
