"""Parameter groups for an optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Set
from typing import Any

from timm.models import group_parameters
from torch import nn

from stochnorm.nn.batch_instance import _BatchInstanceNorm

__all__ = ["parameter_groups", "stages"]

_LEAST_STAGES = 3


def parameter_groups(
    model: nn.Module,
    head: Iterable[nn.Module],
    lr: float,
    head_lr_factor: float = 10.0,
    *,
    weight_decay: float | None = None,
    no_decay_norm_bias: bool = False,
    layer_decay: float = 1.0,
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
        layer_decay: Factor of the learning rate from one stage of the backbone to the stage below it (see
            [stochnorm.models.parameters.stages][]); the last stage has `lr`.

    Returns:
        Up to four groups: backbone, head, and the parts of both without weight decay. With a layer decay those of the
        backbone are several, one for each stage from the first to the last.

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
    backbone: list[tuple[list[nn.Parameter], float]] = [(trained, lr)]
    if layer_decay != 1:
        levels = stages(model, fast)
        backbone = [
            (level, lr * layer_decay**depth) for depth, level in zip(range(len(levels))[::-1], levels, strict=True)
        ]
    groups = []
    for exempt in (False, True):
        decay = 0.0 if exempt else weight_decay
        parts = [*((False, *part) for part in backbone), (True, trained, lr * head_lr_factor)]
        for in_head, members, rate in parts:
            parameters = [p for p in members if p.requires_grad and (p in fast) is in_head and (p in without) is exempt]
            if parameters:
                groups.append({"params": parameters, "lr": rate} | ({} if decay is None else {"weight_decay": decay}))
    return groups


def stages(model: nn.Module, head: Set[nn.Parameter] = frozenset()) -> list[list[nn.Parameter]]:
    """Return the parameters of a network's backbone by stage, from the input to the output.

    The stages of timm's networks are those that timm names. In other networks the parts with parameters, in the order
    of registration, are the stages; the largest part is taken apart as long as there are fewer than three, and a
    normalization belongs to the part before it.

    Args:
        model: The network.
        head: Parameters to leave out.

    Example:
        >>> import torchvision
        >>> [len(stage) for stage in stages(torchvision.models.resnet18())]  # conv1 and bn1, layer1 to layer4, fc
        [3, 12, 15, 15, 15, 2]
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter not in head]
    matcher = getattr(model, "group_matcher", None)
    if callable(matcher):
        levels: dict[str, int] = group_parameters(model, matcher(coarse=True), reverse=True)
    else:
        tops = _parts(model, {parameter for _, parameter in named})
        levels = {name: next((i for i, t in enumerate(tops) if name.startswith(t)), 0) for name, _ in named}
    members: dict[int, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in named:
        members[levels[name]].append(parameter)
    return [members[level] for level in sorted(members)]


def _parts(model: nn.Module, backbone: Set[nn.Parameter]) -> list[tuple[str, ...]]:
    """Return the prefixes of the parameters' names in each part of a network, in the order of registration."""

    def size(module: nn.Module) -> int:
        return sum(parameter in backbone for parameter in module.parameters())

    parts = [("", model)]
    while len(parts) < _LEAST_STAGES:
        largest = max(range(len(parts)), key=lambda index: size(parts[index][1]))
        prefix, module = parts[largest]
        inner = [(f"{prefix}{name}.", child) for name, child in module.named_children() if size(child)]
        if not inner:
            break
        parts[largest : largest + 1] = inner
    found: list[tuple[str, ...]] = []
    for prefix, module in parts:
        if found and isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm):
            found[-1] = (*found[-1], prefix)
        else:
            found.append((prefix,))
    return found
