"""What layers inside a model take in and put out, while it runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

__all__ = ["Tap"]


class Tap:
    """Keeps the outputs (or first inputs) of named modules from the last forward pass, with their gradient graph.

    Forward hooks, so that it works in training mode, under DDP, and with StochNorm (which ``torch.fx`` cannot trace).

    Args:
        model: Any.
        names: Modules, as in ``model.named_modules()``.
        inputs: Keep what the modules take in instead of what they put out.

    Attributes:
        values: The tensors by name, of the last forward pass.

    Raises:
        ValueError: The model has no module of a name.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> with Tap(model, ["0"]) as tap:
        ...     _ = model(torch.ones(2, 3))
        >>> tap.values["0"].shape
        torch.Size([2, 3])
    """

    def __init__(self, model: nn.Module, names: Iterable[str], *, inputs: bool = False) -> None:
        self.values: dict[str, Tensor] = {}
        modules = dict(model.named_modules())
        names = list(names)
        for name in names:
            if name not in modules:
                raise ValueError(f"{type(model).__name__} has no module {name!r}; see model.named_modules()")
        self._handles = [modules[name].register_forward_hook(_Keep(self.values, name, inputs)) for name in names]

    def close(self) -> None:
        """Removes the hooks and lets go of the tensors."""
        for handle in self._handles:
            handle.remove()
        self.values.clear()

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


class _Keep:
    """The hook. A copy of the model, or what is pickled of it, has one that keeps nothing."""

    def __init__(self, values: dict[str, Tensor] | None, name: str, inputs: bool) -> None:
        self.values, self.name, self.inputs = values, name, inputs

    def __call__(self, module: nn.Module, taken: tuple[Tensor, ...], put: Tensor) -> None:
        if self.values is not None:
            self.values[self.name] = taken[0] if self.inputs else put

    def __reduce__(self) -> tuple[Any, ...]:
        return _Keep, (None, self.name, self.inputs)
