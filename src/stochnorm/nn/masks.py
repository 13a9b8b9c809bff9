"""Draw the masks of all StochNorm layers of a model in one call."""

from __future__ import annotations

import torch
from torch import nn

from stochnorm.nn.stochastic import _StochNorm

__all__ = ["JointMasks"]


class JointMasks:
    """The masks of all StochNorm layers of a model, drawn in one call: for steps that a CUDA graph captures.

    A layer on its own draws its mask with one kernel of the GPU. For a network of 53 layers `draw` replaces 53 kernels
    by one. A graph that captured `draw` and the forward pass draws other masks at each replay, with the values of p
    that `update` wrote last. The law of the masks is the same; the bits are not, as one call takes other numbers of the
    generator than many.

    Args:
        model: Any module with StochNorm layers, all of them on one device. A layer that is moved or converted later
            needs a new object.

    Raises:
        ValueError: No StochNorm layer, or layers on several devices.

    Example:
        >>> model = stochnorm.convert(nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(3)), p=1.0)
        >>> masks = JointMasks(model)
        >>> masks.draw()
        >>> masks.flat
        tensor([True, True, True, True, True, True, True])
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = [module for module in model.modules() if isinstance(module, _StochNorm)]
        for layer in self._layers:
            layer._follow()
        devices = {layer._p_tensor.device for layer in self._layers}
        if not devices:
            raise ValueError(f"{type(model).__name__} has no StochNorm layer; call convert(model) first")
        if len(devices) > 1:
            raise ValueError(f"the StochNorm layers must be on one device, got {sorted(map(str, devices))}")
        sizes = [layer.num_features for layer in self._layers]
        with torch.inference_mode(False):
            self._sizes = torch.tensor(sizes, device=devices.pop())
            self.p = torch.empty(sum(sizes), device=self._sizes.device)
            """The probability of each mask; float32, (c of all layers,)."""
            self.flat = torch.empty_like(self.p, dtype=torch.bool)
            """The masks of the last call of `draw`, in the order of `model.modules()`; bool, (c of all layers,)."""
        self._masks = self.flat.split(sizes)  # type: ignore[no-untyped-call]
        self.update()

    def update(self) -> None:
        """Take the layers' present values of p, in place; call it after `set_p`. It does not wait for the device."""
        values = torch.stack([layer._p_tensor for layer in self._layers])
        self.p.copy_(values.repeat_interleave(self._sizes, output_size=len(self.p)))

    def draw(self) -> None:
        """Draw all masks; each layer uses its own in its next forward pass in training mode.

        A layer that runs a second time before the next call draws that mask by itself. Call it once a forward pass,
        and not between a forward pass and its backward pass: the masks are overwritten in place.
        """
        self.flat.bernoulli_(self.p)
        for layer, mask in zip(self._layers, self._masks, strict=True):
            object.__setattr__(layer, "_given", mask)  # nn.Module.__setattr__ is slow

    def close(self) -> None:
        """Let each layer draw its masks by itself again."""
        for layer in self._layers:
            layer._given = None
