"""Batch-Instance Normalization (Nam & Kim, NeurIPS 2018)."""

from __future__ import annotations

from typing import Any

from stochnorm.methods.method import Method, Setup

__all__ = ["BatchInstance"]


class BatchInstance(Method):
    """Replace BatchNorm by Batch-Instance Normalization."""

    name = "bin"
    title = "Batch-Instance Normalization"
    acts_on = "normalization"
    what = "learn for each channel how much to normalize by the batch and by the image"
    source = "Nam & Kim, NeurIPS 2018"

    def apply(self, setup: Setup, settings: Any) -> None:
        """Convert the layers."""
        from stochnorm.nn import convert_batch_instance

        convert_batch_instance(setup.classifier.model, where=setup.where)
