"""The part of a network behind one of its layers, run again and again on changed feature maps."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Tail"]


class Tail:
    """What a network in eval mode makes of a layer's output, without computing what came before the layer again.

    The network's own ``forward`` runs, so any architecture will do: every module that had ended before the layer
    returns what it returned for the images, the layer returns the maps it is told to, and what comes after is
    computed. Where something leads past the layer, as in a residual block, what was kept is brought to the maps' images
    first. Which way is right is tried out when a tail is made; where none is, a warning says so and the whole network
    runs, as slow and as right as the obvious way.

    Args:
        model: Images to logits; in eval mode, under ``torch.inference_mode``.
        layer: As in ``model.named_modules()``.
        images: (b, 3, h, w).

    Attributes:
        logits: (b, num_classes), of the images.
        maps: (b, c, h, w), what the layer puts out for the images.

    Raises:
        ValueError: The layer's output is no feature map (b, c, h, w), or it runs more than once.
    """

    def __init__(self, model: nn.Module, layer: str, images: Tensor) -> None:
        self._model, self._images = model, images
        self._layer = model.get_submodule(layer)
        self._kept: dict[nn.Module, list[Any]] = {}
        self._gather = False
        self.maps, self.logits = self._record(layer)
        if not self._reproduces():
            self._gather = True
            self._record(layer)  # anew, since the network may have written into what was kept
            if not self._reproduces():
                warnings.warn(
                    f"{type(model).__name__} cannot be run from {layer} on: the whole network runs for each of its "
                    "channels, which takes long; another layer, or uniform channel weights, would not",
                    stacklevel=2,
                )
                self._kept.clear()

    def __call__(self, maps: Tensor, indices: Tensor) -> Tensor:
        """Logits (n, num_classes) for other feature maps (n, c, h, w), of the images of these indices (n,)."""
        with ExitStack() as stack:
            for module, outputs in self._kept.items():
                stack.enter_context(_forward_replaced(module, self._in_turn(outputs, module.forward, indices)))
            stack.enter_context(_forward_replaced(self._layer, lambda *_, **__: maps))
            logits: Tensor = self._model(self._images[indices] if self._gather else self._images)
        return logits

    def _reproduces(self) -> bool:
        """Whether the unchanged maps give the logits again and again, in another number and order."""
        again = torch.arange(len(self._images) + 1, device=self._images.device).flip(0) % len(self._images)
        try:
            differences = [self(self.maps[again], again) - self.logits[again] for _ in range(2)]
        except RuntimeError:  # shapes that do not fit
            return False
        most = torch.cat(differences).abs().max()
        return bool(most <= 0.01 * self.logits.abs().max())  # TF32 may differ by the batch size

    def _in_turn(self, outputs: list[Any], forward: Callable[..., Any], indices: Tensor) -> Callable[..., Any]:
        """What a module returned at its first calls, then what it computes."""
        remaining = iter(outputs)
        ended = object()

        def replay(*args: Any, **kwargs: Any) -> Any:
            output = next(remaining, ended)
            if output is ended:
                return forward(*args, **kwargs)
            return _each(output, lambda tensor: tensor[indices]) if self._gather else output

        return replay

    def _record(self, layer: str) -> tuple[Tensor, Tensor]:
        """Runs the network; keeps the outputs of the outermost modules that end before the layer."""
        depth = calls = 0
        maps = torch.empty(0)
        self._kept.clear()
        path = layer.split(".")
        around = {self._model.get_submodule(".".join(path[:i])) for i in range(len(path))}

        def begin(module: nn.Module, inputs: Any) -> None:
            nonlocal depth
            depth += 1

        def end(module: nn.Module, inputs: Any, output: Any) -> None:
            nonlocal depth, calls, maps
            depth -= 1
            if module is self._layer:
                calls += 1
                if not isinstance(output, Tensor) or output.ndim != 4:
                    got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                    raise ValueError(f"{layer} puts out {got}, no feature map (b, c, h, w); choose another layer")
                maps = output.clone()  # what comes next may write into it, as into all that is kept
            elif depth == 0 and calls == 0:
                self._kept.setdefault(module, []).append(_each(output, Tensor.clone))

        with ExitStack() as stack:
            for module in self._model.modules():
                if module not in around:
                    stack.callback(module.register_forward_pre_hook(begin).remove)
                    stack.callback(module.register_forward_hook(end).remove)
            logits = self._model(self._images)
        if calls != 1:
            raise ValueError(
                f"{layer} runs {calls} times in a forward pass, so it has no one output; choose another layer"
            )
        return maps, logits


def _each(output: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The function of every tensor that a module returned."""
    if type(output) in (tuple, list):
        return type(output)(_each(part, function) for part in output)
    return function(output) if isinstance(output, Tensor) else output


@contextmanager
def _forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if own is not None:
            module.__dict__["forward"] = own
