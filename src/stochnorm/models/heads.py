"""New heads: the last layers of a network, one output per class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["names_of", "new_heads", "pooled"]

_STD = 0.01


def new_heads(model: nn.Module, num_classes: int, branches: Sequence[str]) -> tuple[list[nn.Module], list[nn.Module]]:
    """Replace the layers with an output per ImageNet class, in place; weights from N(0, 0.01), biases 0.

    The layers before them are kept, so VGG's layers with 4096 outputs keep their weights.

    Args:
        model: Network of timm or torchvision with 1000 classes.
        num_classes: Number of classes.
        branches: Names of the auxiliary classifiers, which get new heads too.

    Returns:
        The new layers of the main classifier, usually one, and those of the branches.
    """
    replace = _replace_timm if hasattr(model, "reset_classifier") else _replace_torchvision
    names = replace(model, num_classes, branches)
    for layer in (layer for name in names for layer in model.get_submodule(name).modules()):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(layer.weight, std=_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    auxiliary = [name for name in names if name.startswith(tuple(f"{branch}." for branch in branches))]
    return (
        [model.get_submodule(name) for name in names if name not in auxiliary],
        [model.get_submodule(name) for name in auxiliary],
    )


def pooled(features: Tensor) -> Tensor:
    """Reduce the inputs of a head to one vector per image: (b, d) is returned as it is, (b, d, h, w) is averaged.

    Heads that are convolutions (SqueezeNet, DPN) have maps as inputs.
    """
    return features.mean((2, 3)) if features.ndim == 4 else features


def names_of(model: nn.Module, modules: Iterable[nn.Module]) -> list[str]:
    """Return the names of modules in `model.named_modules()`, in the given order."""
    names = {module: name for name, module in model.named_modules()}
    return [names[module] for module in modules]


def _replace_timm(model: Any, num_classes: int, branches: Sequence[str]) -> list[str]:
    """Return the names of the outermost modules that `reset_classifier` made, those of the main classifier first."""
    before = set(model.modules())
    model.reset_classifier(num_classes)
    classifier = model.get_classifier()
    main = set(classifier if isinstance(classifier, tuple) else (classifier,))
    new: list[str] = []
    for name, module in model.named_modules():
        inside = name.startswith(tuple(f"{outer}." for outer in new))
        if module not in before and not inside and any(True for _ in module.parameters()):
            new.append(name)
    # VOLO has another one besides its main classifier.
    return sorted(new, key=lambda name: main.isdisjoint(model.get_submodule(name).modules()))


def _replace_torchvision(model: nn.Module, num_classes: int, branches: Sequence[str]) -> list[str]:
    prefixes = tuple(f"{branch}." for branch in branches)
    layers = [(name, layer) for name, layer in model.named_modules() if _has_1000_outputs(layer)]
    names = [name for name, _ in layers if not name.startswith(prefixes)][-1:]
    names += [name for name, _ in layers if name.startswith(prefixes)]
    for name in names:
        old: Any = model.get_submodule(name)
        if isinstance(old, nn.Linear):
            model.set_submodule(name, nn.Linear(old.in_features, num_classes))
        else:
            model.set_submodule(name, nn.Conv2d(old.in_channels, num_classes, old.kernel_size))
    return names


def _has_1000_outputs(layer: nn.Module) -> bool:
    return (isinstance(layer, nn.Linear) and layer.out_features == 1000) or (
        isinstance(layer, nn.Conv2d) and layer.out_channels == 1000
    )
