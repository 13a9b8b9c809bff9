"""The paper's tables and figures, each a grid in a file of its own: what it shows, command, hours, expectations."""

from stochnorm.paper import figure3, figure4a, figure4b, figure4c, figure4d, table2, table3, table4
from stochnorm.paper.experiment import Experiment

__all__ = ["EXPERIMENTS", "Experiment"]

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (table2, table3, table4, figure3, figure4a, figure4b, figure4c, figure4d)
}
"""By name, in the paper's order."""
