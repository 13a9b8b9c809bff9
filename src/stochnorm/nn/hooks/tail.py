"""Run the part of a network behind one of its layers, many times, on changed feature maps."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Tail"]


class Tail:
    """The part of a network in eval mode behind a layer; it does not repeat the computation before the layer.

    The network's own `forward` runs, so this works for any architecture: each module that ended before the layer
    returns its recorded output, the layer returns the given maps, and the rest is computed. If an output bypasses the
    layer, as in a residual block, the recorded outputs are first gathered for the images of the maps. The constructor
    tries both ways. If neither reproduces the logits, it warns and runs the whole network, which is slower but exact.

    Args:
        model: Maps images to logits; in eval mode, under `torch.inference_mode`.
        layer: Name as in `model.named_modules()`.
        images: (b, 3, h, w).

    Attributes:
        logits: (b, num_classes), the logits of the images.
        maps: (b, c, h, w), the layer's output for the images.

    Raises:
        ValueError: The layer's output is not a feature map (b, c, h, w), or the layer runs more than once.
    """

    def __init__(self, model: nn.Module, layer: str, images: Tensor) -> None:
        self._model, self._images = model, images
        self._layer = model.get_submodule(layer)
        self._kept: dict[nn.Module, list[Any]] = {}
        self._gather = False
        self.maps, self.logits = self._record(layer)
        if not self._reproduces():
            self._gather = True
            self._record(layer)  # again, because the network may have changed the recorded outputs in place
            if not self._reproduces():
                warnings.warn(
                    f"{type(model).__name__} cannot run from {layer} on: the whole network runs for each of its "
                    "channels, which is slow; choose another layer or uniform channel weights",
                    stacklevel=2,
                )
                self._kept.clear()

    def __call__(self, maps: Tensor, indices: Tensor) -> Tensor:
        """Return logits (n, num_classes) for feature maps (n, c, h, w) of the images with the indices (n,)."""
        with ExitStack() as stack:
            for module, outputs in self._kept.items():
                stack.enter_context(_forward_replaced(module, self._in_turn(outputs, module.forward, indices)))
            stack.enter_context(_forward_replaced(self._layer, lambda *_, **__: maps))
            logits: Tensor = self._model(self._images[indices] if self._gather else self._images)
        return logits

    def _reproduces(self) -> bool:
        """Return whether unchanged maps, in another number and order, give the same logits, twice."""
        again = torch.arange(len(self._images) + 1, device=self._images.device).flip(0) % len(self._images)
        try:
            differences = [self(self.maps[again], again) - self.logits[again] for _ in range(2)]
        except RuntimeError:  # wrong shapes
            return False
        most = torch.cat(differences).abs().max()
        return bool(most <= 0.01 * self.logits.abs().max())  # TF32 depends on the batch size

    def _in_turn(self, outputs: list[Any], forward: Callable[..., Any], indices: Tensor) -> Callable[..., Any]:
        """Return a forward function: recorded outputs at the first calls, then the module's own computation."""
        remaining = iter(outputs)
        ended = object()

        def replay(*args: Any, **kwargs: Any) -> Any:
            output = next(remaining, ended)
            if output is ended:
                return forward(*args, **kwargs)
            return _each(output, lambda tensor: tensor[indices]) if self._gather else output

        return replay

    def _record(self, layer: str) -> tuple[Tensor, Tensor]:
        """Run the network; record the outputs of the outermost modules that end before the layer."""
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
                    raise ValueError(
                        f"the output of {layer} is {got}, not a feature map (b, c, h, w); choose another layer"
                    )
                maps = output.clone()  # later modules may change it, and all recorded outputs, in place
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
                f"{layer} runs {calls} times in a forward pass, so it has no single output; choose another layer"
            )
        return maps, logits


def _each(output: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return a module's output with a function applied to each tensor."""
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
