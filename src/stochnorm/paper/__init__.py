"""The paper's tables and figures, one file each: its grid, command, hardware, hours and expected numbers."""

__all__ = ["NAMES"]

NAMES = ("table2", "table3", "table4", "figure3", "figure4a", "figure4b", "figure4c", "figure4d")
"""The experiments, in the paper's order; each is the file of its name. This list imports nothing, for `--help`."""
