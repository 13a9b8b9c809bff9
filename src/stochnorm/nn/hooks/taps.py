"""Read the inputs or outputs of layers inside a model while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["InputTap", "OutputTap"]


_Choose: TypeAlias = Callable[[tuple[Tensor, ...], Tensor], Tensor]


class _Tap:
    """Hooks on named modules, and the tensors that they keep from the last forward pass.

    They are forward hooks, so that taps work in training mode, under DDP, and with StochNorm (which `torch.fx` cannot
    trace).
    """

    def __init__(self, model: nn.Module, names: Iterable[str], choose: _Choose) -> None:
        self.values: dict[str, Tensor] = {}
        modules = dict(model.named_modules())
        names = list(names)
        for name in names:
            if name not in modules:
                raise ValueError(f"{type(model).__name__} has no module {name!r}; see model.named_modules()")
        self._handles = [modules[name].register_forward_hook(_Keep(self.values, name, choose)) for name in names]

    def close(self) -> None:
        """Remove the hooks and release the tensors."""
        for handle in self._handles:
            handle.remove()
        self.values.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


class _Keep:
    """The hook. A copy of the model, or a pickled one, gets a hook that keeps nothing."""

    def __init__(self, values: dict[str, Tensor] | None, name: str, choose: _Choose) -> None:
        self.values, self.name, self.choose = values, name, choose

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self.values is not None:
            self.values[self.name] = self.choose(inputs, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Keep, (None, self.name, self.choose)


def _output(inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output


def _first_input(inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return inputs[0]


class OutputTap(_Tap):
    """The outputs of named modules in the last forward pass, with their gradient graph.

    Args:
        model: Any module.
        names: Modules, as in `model.named_modules()`.

    Attributes:
        values: The tensors of the last forward pass, by name.

    Raises:
        ValueError: The model has no module with a given name.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> with OutputTap(model, ["0"]) as tap:
        ...     _ = model(torch.ones(2, 3))
        >>> tap.values["0"].shape
        torch.Size([2, 3])
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        super().__init__(model, names, _output)


class InputTap(_Tap):
    """The first inputs of named modules in the last forward pass, with their gradient graph.

    Args, attributes and errors are those of `OutputTap`.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> with InputTap(model, ["1"]) as tap:
        ...     _ = model(torch.ones(3, 1, 2, 2))
        >>> tap.values["1"].shape
        torch.Size([3, 4])
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        super().__init__(model, names, _first_input)
