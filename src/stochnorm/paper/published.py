"""The paper's numbers: `published.csv` holds the cells of Tables 2, 3 and 4 (Kou et al., NeurIPS 2020, section 5).

They are the published means and standard deviations of five runs in percent. Table 4 has no deviations. The numbers of
the figures are published as pictures only.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import NamedTuple

__all__ = ["Published", "read_published"]

_DATA = {"cub200": "cub", "stanford-cars": "cars", "fgvc-aircraft": "aircraft", "nih-chestxray": "chestxray14"}


class Published(NamedTuple):
    """A cell of a table, in percent."""

    mean: float
    std: float | None
    """Standard deviation; None where the paper gives none."""


def read_published() -> dict[tuple[str, str, str, float], Published]:
    """Return the cells by experiment, data set (as in `stochnorm ls datasets`), method and rate.

    Example:
        >>> read_published()["table3", "cub", "stochnorm", 15.0]
        Published(mean=50.14, std=0.19)
    """
    text = files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    return {
        (f"table{row['table']}", _DATA[row["dataset"]], row["method"], float(row["rate"])): Published(
            float(row["mean"]), float(row["std"]) if row["std"] else None
        )
        for row in csv.DictReader(text.splitlines())
    }
