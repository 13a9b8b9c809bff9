"""Turn the BatchNorm layers of a model into another method's and back, in place."""

from __future__ import annotations

from typing import TypeVar, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.batch_instance import _BatchInstanceNorm
from stochnorm.nn.stochastic import _StochNorm, check_p
from stochnorm.nn.surgery import BATCH_INSTANCE, STOCH, Where, change_class, family_of, pick, to_batch_norm

__all__ = ["convert", "convert_batch_instance", "restore"]

ModelT = TypeVar("ModelT", bound=nn.Module)


def convert(model: ModelT, *, p: float = 0.5, momentum: float | None = None, where: Where | None = None) -> ModelT:
    """Replace BatchNorm by StochNorm, in place.

    The layers stay the same objects and only change their class, so parameters, buffers (the pre-trained moving
    statistics), hooks, sharing, ``requires_grad``, ``training``, device, dtype and every optimizer's references are
    as before. A second call changes p. Layers without moving statistics to inherit (``track_running_stats=False``)
    and frozen or synchronized kinds (:func:`stochnorm.nn.freeze`, ``FrozenBatchNorm2d``, ``SyncBatchNorm``) are left
    alone.

    Known are ``nn.BatchNorm1d/2d/3d`` and timm's ``BatchNormAct2d``, thereby every architecture of torchvision and
    timm that normalizes by batch.

    Args:
        model: Any module; a single BatchNorm works too.
        p: Probability that a channel is normalized by batch statistics, in [0, 1].
        momentum: Weight of the batch statistics in the moving ones (the paper's alpha). None keeps each layer's own.
        where: ``where(name, module)`` picks layers, with the name as in ``model.named_modules()``; see
            :func:`stochnorm.nn.name_matches`. None is all.

    Returns:
        The model.

    Raises:
        ValueError: p or momentum outside [0, 1]; no layer to convert; an uninitialized lazy layer; a layer of another
            method.
        TypeError: The model, or a part of it, is wrapped (DDP, FSDP, ``torch.compile``) or a
            BatchNorm subclass of unknown forward pass.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> convert(model, p=0.5)[1]
        StochNorm2d(8, ..., p=0.5)
    """
    check_p(p)
    if momentum is not None and not 0.0 <= momentum <= 1.0:
        raise ValueError(f"momentum must be in [0, 1], got {momentum}: it is the weight of a batch's statistics")
    picked = pick(model, where)
    change_class(picked, STOCH)
    for _, module in picked:
        cast(_StochNorm, module).p = p
        if momentum is not None:
            module.momentum = momentum
    return model


def convert_batch_instance(model: ModelT, *, where: Where | None = None) -> ModelT:
    """Replace BatchNorm by Batch-Instance Normalization, in place; the model computes the same at first.

    What :func:`convert` keeps is kept, and the same layers are left alone. Each layer gains a parameter ``rho`` of
    ones, so convert **before** the optimizer is made, which would not know it, and before loading a state dict
    that has it. rho wants no weight decay, and learns ten times as fast in the authors' code:
    ``[p for name, p in model.named_parameters() if name.endswith("rho")]``.

    Args:
        model: Any module; a single BatchNorm works too.
        where: ``where(name, module)`` picks layers. None is all.

    Returns:
        The model.

    Raises:
        ValueError: No layer to convert; an uninitialized lazy layer; a layer of another method.
        TypeError: As for :func:`convert`.

    Example:
        >>> model = convert_batch_instance(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
        >>> [name for name, _ in model.named_parameters()]
        ['0.weight', '0.bias', '1.weight', '1.bias', '1.rho']
    """
    picked = pick(model, where)
    new = [module for _, module in picked if family_of(module) is not BATCH_INSTANCE]
    change_class(picked, BATCH_INSTANCE)
    for module in new:
        cast(_BatchInstanceNorm, module)._add_rho()
    return model


def restore(model: ModelT) -> ModelT:
    """Replace StochNorm, frozen and Batch-Instance layers by plain BatchNorm again, in place, for deployment.

    The output in eval mode is bit for bit the same. Everything :func:`convert` keeps is kept; ``momentum`` stays what
    it was set to, and frozen parameters stay frozen (:func:`stochnorm.nn.unfreeze` lets them learn).

    Args:
        model: A module that a conversion converted, or that was built of such layers.

    Returns:
        The model.

    Raises:
        ValueError: The model has no such layer, or a Batch-Instance layer that has learned: with rho below 1 it
            computes what no BatchNorm does.

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
                f"cannot restore {name or 'the layer'}: its rho fell to {module.rho.min().item():.3g}, so it "
                "normalizes in part by each image's own statistics, which BatchNorm cannot. Deploy the model as it is"
            )
    for _, module in layers:
        to_batch_norm(module)
    return model
