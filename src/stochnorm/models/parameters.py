"""Parameter groups for an optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from stochnorm.nn.batch_instance import _BatchInstanceNorm

__all__ = ["parameter_groups"]


def parameter_groups(
    model: nn.Module,
    head: Iterable[nn.Module],
    lr: float,
    head_lr_factor: float = 10.0,
    *,
    weight_decay: float | None = None,
    no_decay_norm_bias: bool = False,
) -> list[dict[str, Any]]:
    """Group the parameters of backbone and head, with their learning rates.

    A shared parameter is in one group, that of the head if the head has it. Frozen parameters (`requires_grad` False)
    and empty groups are left out. The rho of Batch-Instance Normalization has the head's learning rate, as its authors
    set it, and no weight decay, which would pull it towards instance normalization.

    Args:
        model: The network; the groups have the order of its parameters.
        head: Modules inside it that learn faster.
        lr: Learning rate of the backbone.
        head_lr_factor: Learning-rate multiplier for the head.
        weight_decay: Weight decay of every group; None: that of the optimizer.
        no_decay_norm_bias: Whether parameters of at most one axis (scale and shift of normalization, biases) have no
            weight decay. They get separate groups.

    Returns:
        Up to four groups: backbone, head, and the parts of both without weight decay.

    Raises:
        ValueError: No parameter requires a gradient.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        >>> groups = parameter_groups(model, [model[1]], lr=0.1, no_decay_norm_bias=True)
        >>> [(len(group["params"]), group["lr"], group.get("weight_decay")) for group in groups]
        [(1, 0.1, None), (1, 1.0, None), (1, 0.1, 0.0), (1, 1.0, 0.0)]
        >>> optimizer = torch.optim.SGD(groups, weight_decay=5e-4)
    """
    rhos = {module.rho for module in model.modules() if isinstance(module, _BatchInstanceNorm)}
    fast = rhos | {parameter for module in head for parameter in module.parameters()}
    without = rhos | {parameter for parameter in model.parameters() if no_decay_norm_bias and parameter.ndim <= 1}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError(f"{type(model).__name__} has no parameter with requires_grad; unfreeze some")
    groups = []
    for exempt in (False, True):
        decay = 0.0 if exempt else weight_decay
        for in_head, rate in ((False, lr), (True, lr * head_lr_factor)):
            parameters = [p for p in trained if (p in fast) is in_head and (p in without) is exempt]
            if parameters:
                groups.append({"params": parameters, "lr": rate} | ({} if decay is None else {"weight_decay": decay}))
    return groups
