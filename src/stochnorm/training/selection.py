"""Which of a run's models is kept."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["selected"]


def selected(history: list[dict[str, Any]], select: str) -> dict[str, Any]:
    """Return the record of the model to keep: the last, or the first with the best validation score; ties by loss."""
    if select == "last":
        return history[-1]

    def rank(record: dict[str, Any]) -> tuple[float, float]:
        score = record[f"val_{record['score']}"]  # None: no finding has both positive and negative images
        return -math.inf if score is None else score, -record["val_loss"]

    return max(history, key=rank)
