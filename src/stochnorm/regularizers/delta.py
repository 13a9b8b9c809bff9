"""DELTA: keep feature maps near those of the pre-trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stochnorm.nn.hooks.stages import check_layers
from stochnorm.nn.hooks.taps import OutputTap
from stochnorm.regularizers.regularizer import Regularizer, Step, as_modules, wide

__all__ = ["DELTA", "delta"]


def delta(
    feature_maps: Sequence[Tensor], reference_maps: Sequence[Tensor], channel_weights: Sequence[Tensor] | None = None
) -> Tensor:
    r"""Return the weighted squared distance of feature maps from a reference's, summed over layers and images.

    Li, Xiong, Wang, Rao, Liu, Huan: *DELTA: Deep Learning Transfer using Feature Map with Attention for Convolutional
    Networks*, ICLR 2019, equations 4 and 5, scaled as in the authors' code: a layer of c channels gives

    $$ \sum_{i=1}^{b} \sum_{j=1}^{c} W_j \frac{c}{h w} \, \frac{1}{2} \lVert FM_{ij} - FM^*_{ij} \rVert^2 $$

    The factor $c / (h w)$ gives layers of all sizes the same weight; $W_j = 1/c$ gives channels the same weight. The
    value is a sum over the batch, so it grows with the batch size and a given alpha fits one batch size.

    Args:
        feature_maps: Maps of the network in training, with gradient, one tensor per layer.
        reference_maps: Maps of the pre-trained network for the same images; constants.
        channel_weights: Weights W, with sum 1 in each layer. None is 1/c.

    Shape:
        - feature_maps, reference_maps: (b, c, h, w), with the same b; c, h, w differ between layers.
        - channel_weights: (c,).

    Returns:
        A scalar, at least float32 (the difference is taken in it, under autocast too).

    Raises:
        ValueError: Maps that are not (b, c, h, w), or shapes that differ.

    Example:
        >>> delta([torch.ones(2, 3, 4, 4)], [torch.zeros(2, 3, 4, 4)])  # 2 images x 3 channels x 1/2
        tensor(3.)
    """
    weights = [None] * len(feature_maps) if channel_weights is None else channel_weights
    terms = []
    for maps, reference, weight in zip(feature_maps, reference_maps, weights, strict=True):
        if maps.ndim != 4 or maps.shape != reference.shape:
            raise ValueError(
                f"DELTA compares feature maps (b, c, h, w) of one shape, got {tuple(maps.shape)} and "
                f"{tuple(reference.shape)}; choose layers with such outputs"
            )
        c, h, w = maps.shape[1:]
        if weight is not None and weight.shape != (c,):
            raise ValueError(f"a layer of {c} channels needs channel weights ({c},), got {tuple(weight.shape)}")
        squares = (wide(maps) - wide(reference.detach())).square().sum((0, 2, 3))
        terms.append((squares if weight is None else c * squares * weight).sum() / (2 * h * w))
    return torch.stack(terms).sum()


class DELTA(Regularizer):
    r"""A penalty on the distance of feature maps from the pre-trained network's, and on the head.

    $$ \alpha \, \Omega + \frac{\beta}{2} \lVert w_{head} \rVert^2 $$

    The first term is [stochnorm.regularizers.delta.delta][] of the model's feature maps. The reference runs on every
    step's images, always in eval mode and without gradient. It is not in the state dict, because a resumed run has the
    pre-trained network anyway, but it follows `.to()`. The channel weights are buffers. On a GPU a step does not wait
    for the device.

    Args:
        model: The network in training; convert it before or after.
        reference: A deep copy of the pre-trained model; it is frozen here. Later changes of the model, such as
            conversion and new moving statistics, do not affect it. It runs faster after
            [stochnorm.nn.fold.fold_batch_norm][].
        head: The new layer or layers whose parameters beta shrinks, including biases; may be empty.
        layers: Layers whose outputs are compared, as in `model.named_modules()`; see
            [stochnorm.nn.hooks.stages.stage_names][].
        weights: Weights W of each layer, (c,); see [stochnorm.regularizers.attention][]. None is 1/c.
        alpha: Strength of the feature maps' term. The published 0.01 is for the last convolution in each stage of a
            ResNet, before its normalization, which has small values; with whole stages, or a convolution that widens,
            training diverges.
        beta: Strength of the head's term.

    Raises:
        ValueError: Unknown layers, weights of other layers, a negative strength, or a reference that shares tensors
            with the model.

    Example:
        >>> import copy
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(72, 10))
        >>> images = torch.rand(2, 3, 5, 5)
        >>> regularizer = DELTA(model, copy.deepcopy(model), [model[2]], layers=["0"], beta=0.0)
        >>> logits = model(images)
        >>> regularizer(Step(images, torch.tensor([0, 1]), logits, logits))  # nothing has moved yet
        tensor(0., grad_fn=<...>)
    """

    channel_weights: Tensor

    def __init__(
        self,
        model: nn.Module,
        reference: nn.Module,
        head: nn.Module | Iterable[nn.Module],
        *,
        layers: str | Sequence[str],
        weights: Mapping[str, Tensor] | None = None,
        alpha: float = 1e-4,
        beta: float = 0.01,
    ) -> None:
        super().__init__()
        for name, strength in (("alpha", alpha), ("beta", beta)):
            if not strength >= 0:
                raise ValueError(f"{name} must be at least 0, got {strength!r}: it is the strength of a penalty")
        if not _storages(model).isdisjoint(_storages(reference)):
            raise ValueError(
                "the reference shares tensors with the model, so training would change it: pass copy.deepcopy(model)"
            )
        self.layers = check_layers(model, layers)
        self.alpha, self.beta = alpha, beta
        self._head = as_modules(head)
        # Tuples, because a plain attribute would be a child: trained, saved, switched to training mode.
        self._reference = (reference.eval().requires_grad_(False).to(memory_format=torch.channels_last),)
        self._taps = (OutputTap(model, self.layers), OutputTap(reference, self.layers))
        self._sizes: list[int] | None = None
        if weights is not None:
            if set(weights) != set(self.layers):
                raise ValueError(
                    f"DELTA compares {', '.join(self.layers)}, got channel weights of {', '.join(weights)}"
                )
            self._sizes = [len(weights[layer]) for layer in self.layers]
            self.register_buffer("channel_weights", torch.cat([weights[layer].detach() for layer in self.layers]))

    @property
    def reference(self) -> nn.Module:
        """The frozen pre-trained network."""
        return self._reference[0]

    def forward(self, step: Step) -> Tensor:
        """Return the penalty of a step; the model must have just run on its images.

        Raises:
            ValueError: The model did not run on them, or no feature map has a gradient.
        """
        live, fixed = self._taps
        self._check(live.values, len(step.inputs))
        with torch.no_grad():
            self.reference.eval()(step.inputs)
        maps, reference_maps = ([tap.values[layer] for layer in self.layers] for tap in (live, fixed))
        self.forget()
        weights = None if self._sizes is None else self.channel_weights.split(self._sizes)  # type: ignore[no-untyped-call]
        penalty = self.alpha * delta(maps, reference_maps, weights) / step.share  # delta is a sum over the batch
        for parameter in (p for module in self._head for p in module.parameters()):
            penalty = penalty + self.beta / 2 * wide(parameter).square().sum()
        return penalty

    def forget(self) -> None:
        """Release the maps of the last forward passes, and their graph."""
        for tap in self._taps:
            tap.values.clear()

    def _check(self, maps: Mapping[str, Tensor], images: int) -> None:
        missing = [layer for layer in self.layers if layer not in maps]
        if len(missing) == len(self.layers):
            raise ValueError(
                "DELTA needs the feature maps of the model's last forward pass: call model(step.inputs) first; a copy "
                "of the model, or of DELTA, needs a new DELTA"
            )
        if missing:
            raise ValueError(
                f"the model's last forward pass did not call {', '.join(missing)}: gradient checkpointing runs the "
                "modules in a container, not the container; enable it before stage_names, or name layers that run"
            )
        if (given := {len(of_layer) for of_layer in maps.values()}) != {images}:
            raise ValueError(
                f"the model's last forward pass had {given.pop()} images, the step has {images}; call the model on "
                "other images after DELTA, not before"
            )
        if self.alpha and torch.is_grad_enabled() and not any(of_layer.requires_grad for of_layer in maps.values()):
            raise ValueError(
                "no feature map that DELTA compares has a gradient, so it would have no effect: unfreeze the backbone, "
                "checkpoint with use_reentrant=False, or set alpha to 0"
            )

    def facts(self) -> dict[str, Any]:
        """Return the names of the layers compared."""
        return {"delta_layers": self.layers}

    def close(self) -> None:
        """Remove the hooks from the model."""
        for tap in self._taps:
            tap.close()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.reference._apply(fn)  # type: ignore[no-untyped-call]  # .to() uses it
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


def _storages(model: nn.Module) -> set[int]:
    """Return the identities of the storages of a model's tensors, on any device."""
    tensors = (*model.parameters(), *model.buffers())
    return {tensor.untyped_storage()._cdata for tensor in tensors if tensor.numel()}
