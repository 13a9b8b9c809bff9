"""Let a model normalize, add and activate in one pass on GPUs, in place; and undo it."""

from __future__ import annotations

from torch import nn

from stochnorm.nn.fusion.one_pass import is_normalization
from stochnorm.nn.fusion.sequential import FusedSequential, InPairs, has_pair

__all__ = ["fuse", "unfuse"]


def fuse(model: nn.Module) -> int:
    """Let normalization run with the residual addition and the activation behind it in one pass on GPUs, in place.

    Blocks and layers only change their class: parameters, state-dict keys, hooks, sharing and optimizer links stay. The
    model computes the same as before, on a GPU to rounding. On CPUs and under `torch.compile`, it runs the same code as
    before. Where a hook would see a tensor that no longer exists (the output of a normalization layer before its
    activation), the steps run one after another, too.

    It works with every kind of normalization, before and after [stochnorm.nn.convert][],
    [stochnorm.nn.convert_batch_instance][], [stochnorm.nn.freeze][] and [stochnorm.nn.restore][]. On a GPU, StochNorm
    layers of a block may draw their masks in another order than before: the law is the same, the bits are not.

    Modules that change: the ResNets of torchvision and timm (also ResNeXt and Wide ResNet), torchvision's DenseNet,
    GoogLeNet, Inception and MobileNetV2, timm's blocks with inverted residuals (EfficientNet, MobileNet), timm's
    `BatchNormAct2d`, and every `nn.Sequential` in which `nn.ReLU`, `nn.ReLU6` or `nn.SiLU` follows normalization (VGG,
    and torchvision's `Conv2dNormActivation`). Derived classes are left alone.

    Args:
        model: Any module. TorchScript needs the model as it was: call [stochnorm.nn.unfuse][] first.

    Returns:
        The number of modules that changed; 0 if there is nothing to fuse.

    Raises:
        TypeError: The model is no module.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> fuse(model), fuse(model), unfuse(model)
        (1, 0, 1)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"fuse needs a module, got {model!r}; give the network")
    changed = 0
    for module in model.modules():
        kind = _fused_class(module)
        if kind is not None:
            module.__class__ = kind
            changed += 1
    return changed


def unfuse(model: nn.Module) -> int:
    """Give the modules of a model the classes that they had before [stochnorm.nn.fuse][], in place.

    Returns:
        The number of modules that changed.
    """
    changed = 0
    for module in model.modules():
        kind: type[nn.Module] | None = type(module).__dict__.get("_fuses")
        if kind is not None:
            module.__class__ = kind
            changed += 1
    return changed


def _fused_class(module: nn.Module) -> type[nn.Module] | None:
    """Return the class that runs a module's normalization in fewer passes; None if there is none, or nothing to fuse.

    Neither torchvision nor timm is imported unless the model has their modules.
    """
    kind = type(module)
    library = kind.__module__.partition(".")[0]
    classes: tuple[type[nn.Module], ...] = (FusedSequential,)
    if library == "torchvision":
        from stochnorm.nn.fusion import torchvision_blocks

        classes = torchvision_blocks.CLASSES
    elif library == "timm":
        from stochnorm.nn.fusion import timm_blocks

        classes = timm_blocks.CLASSES
    for fused in classes:
        if fused.__dict__["_fuses"] is kind:
            found = has_pair(module.children()) if issubclass(fused, InPairs) else _has_normalization(module)
            return fused if found else None
    return None


def _has_normalization(module: nn.Module) -> bool:
    return any(is_normalization(inner) for inner in module.modules())
