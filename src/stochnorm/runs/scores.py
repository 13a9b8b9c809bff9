"""The scores by which models are selected and compared, and what people call them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MEAN_AUC", "SCORES", "TOP1", "Score"]


@dataclass(frozen=True)
class Score:
    """A metric in percent, of which more is better."""

    key: str
    """Its name in metrics, records and files."""
    title: str
    """Its name in sentences and headings."""
    short: str
    """Its name at axes and in tables."""
    column: str
    """Its name where there is little room."""
    label: str
    """Name of a label, in the singular: class or finding."""
    multi_label: bool
    """An image has any number of labels, instead of one."""


TOP1 = Score("top1", "top-1 accuracy", "top-1", "top-1", "class", multi_label=False)
MEAN_AUC = Score("mean_auc", "mean AUC", "mean AUC", "AUC", "finding", multi_label=True)

SCORES = {score.key: score for score in (TOP1, MEAN_AUC)}
"""All of them, by key."""
