"""Find where the stages of a backbone end: the last layer at each spatial resolution."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from stochnorm.nn.hooks.modes import evaluating

__all__ = ["check_layers", "stage_names"]


def stage_names(
    model: nn.Module, *, count: int = 4, image_size: int = 224, head: Iterable[nn.Module] = ()
) -> list[str]:
    """Return the names of the modules whose outputs are the feature maps (b, c, h, w) of a backbone's last stages.

    One forward pass of one image in eval mode finds them, so it works for any ConvNet. Modules with maps of three or
    more resolutions are opened; the other modules are units. A stage is all units at one resolution and ends with the
    last of them. A resolution at which only pooling runs is not a stage. For ResNet-50 the stages end with `layer1` to
    `layer4`; for VGG with the inputs of the last four max pools.

    Args:
        model: Maps images (b, 3, s, s) to any output.
        count: Number of stages, counted from the end; fewer if the model has fewer.
        image_size: Side of the image, in pixels. Small images merge stages.
        head: Modules after the backbone; nothing that runs after their first call is a stage.

    Returns:
        Names as in `model.named_modules()`, in the order of computation.

    Raises:
        ValueError: The model is not a chain of such stages: it has fewer than two, or timm knows later ones.

    Example:
        >>> stage_names(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3)))
        ['1', '3']
    """
    maps = _feature_maps(model, image_size, head)
    stages: dict[int, str] = {}
    convolves: set[int] = set()
    for name in _units(model, maps):
        side, same_as = maps[name]
        module = model.get_submodule(name)
        convolves |= {side} if any(p.ndim == 4 for p in module.parameters()) else set()
        if side not in stages or maps[stages[side]][1] != same_as:  # an identity does not end a stage
            stages.pop(side, None)  # keep the order of computation
            stages[side] = name
    ends = {side: name for side, name in stages.items() if side in convolves}
    if len(ends) < 2 or min(ends) > 3 * _last_side(model, image_size):
        found = f"only {', '.join(ends.values())}" if ends else "none"
        raise ValueError(
            f"{type(model).__name__} is not a chain of convolutional stages: at {image_size} px its stages with "
            f"feature maps (b, c, h, w) are {found}; name layers with such maps (--delta.layers), or choose a ConvNet"
        )
    return list(ends.values())[-count:]


def _last_side(model: nn.Module, image_size: int) -> float:
    """Return the side of the last feature maps that timm knows, in pixels; infinity if it knows none."""
    known = getattr(model, "feature_info", None)
    reductions = [stage["reduction"] for stage in known if "reduction" in stage] if isinstance(known, list) else []
    return image_size / max(reductions) if reductions else float("inf")


def check_layers(model: nn.Module, layers: str | Iterable[str]) -> list[str]:
    """Return the layers that a user named, as a list, after a check.

    Raises:
        ValueError: The model has no module with a given name, no name is given, or a name is given twice.
    """
    layers = [layers] if isinstance(layers, str) else list(layers)
    twice = sorted({layer for layer in layers if layers.count(layer) > 1})
    if twice:
        raise ValueError(f"layer {', '.join(twice)} is a duplicate; list each layer once")
    names = [name for name, _ in model.named_modules() if name]
    unknown = [layer for layer in layers if layer not in names]
    if unknown or not layers:
        outer = [name for name in names if name.count(".") < 2]
        what = f"no layer {', '.join(map(repr, unknown))}" if unknown else "got no layer"
        raise ValueError(f"{what}: {type(model).__name__} has {', '.join(outer)}, and the layers inside them")
    return layers


def _feature_maps(model: nn.Module, image_size: int, head: Iterable[nn.Module]) -> dict[str, tuple[int, int]]:
    """Return the side of each module's square output maps, and a number that modules with the same output share.

    The modules are in the order in which they end. Three kinds of modules are left out: those with maps of one pixel
    (squeeze-and-excitation), those with maps that are not square (other axes, as inside ConvNeXt), and those that run
    more than once.
    """
    maps: dict[str, tuple[int, int]] = {}
    calls: dict[str, int] = {}
    latest: Any = None
    version = number = 0
    ended = False

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            nonlocal latest, version, number
            calls[name] = calls.get(name, 0) + 1
            if not isinstance(output, Tensor):
                return
            number += output is not latest or output._version != version  # written in place: a new output
            latest, version = output, output._version
            if output.ndim == 4 and 1 < output.shape[2] == output.shape[3] and not ended:
                maps[name] = output.shape[3], number

        return hook

    def end(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal ended
        ended = True

    parameter = next(model.parameters())
    image = torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # inference mode keeps no versions
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(model))
        for module in head:
            stack.callback(module.register_forward_pre_hook(end).remove)
        for name, module in model.named_modules():
            stack.callback(module.register_forward_hook(keep(name)).remove)
        model(image)
    return {name: found for name, found in maps.items() if calls[name] == 1}


def _units(model: nn.Module, maps: dict[str, tuple[int, int]]) -> list[str]:
    """Return the outermost modules with fewer than three resolutions, in the order in which they end."""

    def opened(name: str) -> bool:
        inside = {side for inner, (side, _) in maps.items() if inner == name or inner.startswith(f"{name}.")}
        return name not in maps or len(inside) > 2

    def outermost(name: str) -> bool:
        parts = name.split(".")
        return all(opened(".".join(parts[:depth])) for depth in range(1, len(parts)))

    return [name for name in maps if name and not opened(name) and outermost(name)]
