"""The optimizer of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stochnorm.models import Classifier
from stochnorm.nn.batch_instance import clip_after_steps
from stochnorm.runs.config import FinetuneConfig

__all__ = ["make_optimizer"]


def make_optimizer(
    config: FinetuneConfig, classifier: Classifier, more: Sequence[dict[str, Any]] = (), *, on_gpu: bool
) -> torch.optim.Optimizer:
    """Make the optimizer of a classifier's parameters.

    Args:
        config: Optimizer, rates, their decay with depth, momentum (the first beta of AdamW), weight decay.
        classifier: The classifier, after the methods have been applied.
        more: Further groups of parameters, those of terms of the loss.
        on_gpu: Whether to take the fused kernel of CUDA, which reads learning rates from tensors, so that a CUDA graph
            can hold it.
    """
    groups = classifier.parameter_groups(
        config.lr,
        config.head_lr_factor_used,
        no_decay_norm_bias=not config.decay_norm_bias,
        layer_decay=config.layer_decay,
    )
    groups += more
    optimizer = _of_groups(groups, config, on_gpu=on_gpu)
    clip_after_steps(optimizer, classifier.model)
    return optimizer


def _of_groups(groups: list[dict[str, Any]], config: FinetuneConfig, *, on_gpu: bool) -> torch.optim.Optimizer:
    fused = True if on_gpu else None
    if config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(
            groups,
            betas=(config.momentum, 0.999),
            weight_decay=config.weight_decay_used,
            fused=fused,
            capturable=on_gpu,
        )
        optimizer._warned_capturable_if_run_uncaptured = True  # the first steps run before the capture
        return optimizer
    return torch.optim.SGD(
        groups,
        momentum=config.momentum,
        weight_decay=config.weight_decay_used,
        nesterov=config.momentum > 0,
        fused=fused,
    )
