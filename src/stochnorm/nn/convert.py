"""Convert the BatchNorm layers of a model to another method's layers and back, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.batch_instance import _BatchInstanceNorm
from stochnorm.nn.probability import check_p
from stochnorm.nn.select import Where, pick
from stochnorm.nn.stochastic import _StochNorm
from stochnorm.nn.surgery import BATCH_INSTANCE, STOCH, change_class, family_of, to_batch_norm
from stochnorm.nn.synchronized import Synchronization

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["convert", "convert_batch_instance", "restore"]

ModelT = TypeVar("ModelT", bound=nn.Module)


def convert(
    model: ModelT,
    *,
    p: float = 0.5,
    momentum: float | None = None,
    where: Where | None = None,
    sync: bool | None = None,
    process_group: ProcessGroup | None = None,
) -> ModelT:
    """Replace BatchNorm by StochNorm, in place.

    The layers stay the same objects and only change their class. So parameters, buffers (the pre-trained moving
    statistics), hooks, sharing, `requires_grad`, `training`, device, dtype and every optimizer's references stay as
    they are. A second call changes p. Layers without moving statistics (`track_running_stats=False`) and frozen or
    synchronized layers ([stochnorm.nn.freeze][], `FrozenBatchNorm2d`, `SyncBatchNorm`) are skipped.

    It converts `nn.BatchNorm1d/2d/3d` and timm's `BatchNormAct2d`, so it supports every architecture of torchvision and
    timm with batch normalization.

    Args:
        model: Any module; a single BatchNorm works, too.
        p: Probability that a channel is normalized by batch statistics, in [0, 1].
        momentum: Weight of the batch statistics in the moving ones (the paper's alpha). None keeps each layer's value.
        where: `where(name, module)` picks layers, with the name as in `model.named_modules()`; see
            [stochnorm.nn.name_matches][]. None picks all.
        sync: Compute the batch statistics over the processes of torch.distributed, and draw one mask for all of them;
            see the guide *Several GPUs*. Nothing changes in a single process. None keeps each layer's choice, False at
            first.
        process_group: Processes to synchronize, with `sync=True`; None for all.

    Returns:
        The model.

    Raises:
        ValueError: p or momentum outside [0, 1], no layer to convert, a lazy layer that is not initialized, a layer of
            another method, or a process group without sync.
        TypeError: The model, or a part of it, is wrapped (DDP, FSDP, `torch.compile`), or it has a BatchNorm subclass
            with an unknown forward pass.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> convert(model, p=0.5)[1]
        StochNorm2d(8, ..., p=0.5)
    """
    check_p(p)
    if momentum is not None and not 0.0 <= momentum <= 1.0:
        raise ValueError(f"momentum must be in [0, 1], got {momentum}: it is the weight of the batch statistics")
    if process_group is not None and not sync:
        raise ValueError(f"process_group needs sync=True, got sync={sync}; pass sync=True, or leave process_group out")
    picked = pick(model, where)
    change_class(picked, STOCH)
    for _, module in picked:
        layer = cast(_StochNorm, module)
        layer.p = p
        if sync is not None:
            layer._sync = Synchronization(process_group) if sync else None
        if momentum is not None:
            module.momentum = momentum
    return model


def convert_batch_instance(model: ModelT, *, where: Where | None = None) -> ModelT:
    """Replace BatchNorm by Batch-Instance Normalization, in place; the output does not change before training.

    It keeps and skips the same things as [stochnorm.nn.convert][]. Each layer gets a parameter `rho` of ones, so
    convert **before** you make the optimizer, and before you load a state dict that has `rho`. Use no weight decay for
    rho; its learning rate is ten times higher in the authors' code. To select it:
    `[p for name, p in model.named_parameters() if name.endswith("rho")]`.

    Args:
        model: Any module; a single BatchNorm works, too.
        where: `where(name, module)` picks layers. None picks all.

    Returns:
        The model.

    Raises:
        ValueError: No layer to convert, a lazy layer that is not initialized, or a layer of another method.
        TypeError: As for [stochnorm.nn.convert][].

    Example:
        >>> model = convert_batch_instance(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
        >>> print(*(name for name, _ in model.named_parameters()))
        0.weight 0.bias 1.weight 1.bias 1.rho
    """
    picked = pick(model, where)
    new = [module for _, module in picked if family_of(module) is not BATCH_INSTANCE]
    change_class(picked, BATCH_INSTANCE)
    for module in new:
        cast(_BatchInstanceNorm, module)._add_rho()
    return model


def restore(model: ModelT) -> ModelT:
    """Replace StochNorm, frozen and Batch-Instance layers by plain BatchNorm, in place, for deployment.

    The output in eval mode is bit for bit the same. It keeps the same things as [stochnorm.nn.convert][]. `momentum`
    keeps its present value, and frozen parameters stay frozen ([stochnorm.nn.unfreeze][] makes them trainable).

    Args:
        model: A module with layers of a conversion.

    Returns:
        The model.

    Raises:
        ValueError: The model has no such layer, or it has a Batch-Instance layer with rho below 1, which BatchNorm
            cannot replace.

    Example:
        >>> restore(convert(nn.Sequential(nn.BatchNorm2d(8))))[0]
        BatchNorm2d(8, ...)
    """
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, _BatchNorm) and family_of(m)]
    if not layers:
        raise ValueError(f"nothing to restore: {type(model).__name__} has no StochNorm, frozen or Batch-Instance layer")
    for name, module in layers:
        if isinstance(module, _BatchInstanceNorm) and (module.rho < 1).any():
            raise ValueError(
                f"cannot restore {name or 'the layer'}: its rho fell to {module.rho.min().item():.3g}, so it partly "
                "normalizes by the statistics of each image, which BatchNorm cannot do. Deploy the model as it is"
            )
    for _, module in layers:
        to_batch_norm(module)
    return model
