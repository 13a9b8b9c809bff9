"""DELTA: feature maps stay near those of the pre-trained network."""

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
    """Weighted squared distance of feature maps from a reference's, summed over layers, images and channels.

    Li, Xiong, Wang, Rao, Liu, Huan: *DELTA: Deep Learning Transfer using Feature Map with Attention for Convolutional
    Networks*, ICLR 2019, equations 4 and 5, scaled as in the authors' code: a layer of c channels gives

        sum over the b images and c channels j of  W_j c / (h w) 1/2 ||FM_j - FM*_j||^2

    With c / (h w), layers of any size weigh alike; W_j = 1/c weighs channels alike. It is a sum over the batch, so it
    grows with the batch size, where a loss averaged over the batch does not: alpha belongs to a batch size.

    Args:
        feature_maps: Of the network in training, with gradient, one a layer.
        reference_maps: Of the pre-trained network for the same images; constants.
        channel_weights: W, sums to 1 in each layer. None is 1/c.

    Shape:
        - feature_maps, reference_maps: (b, c, h, w), b alike, c, h, w of each layer.
        - channel_weights: (c,).

    Returns:
        A scalar, at least float32 (the difference is taken in it, under autocast too).

    Raises:
        ValueError: Maps that are not (b, c, h, w), or shapes that do not fit.

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
                f"{tuple(reference.shape)}; choose layers that put out such maps"
            )
        c, h, w = maps.shape[1:]
        if weight is not None and weight.shape != (c,):
            raise ValueError(f"a layer of {c} channels takes channel weights ({c},), got {tuple(weight.shape)}")
        squares = (wide(maps) - wide(reference.detach())).square().sum((0, 2, 3))
        terms.append((squares if weight is None else c * squares * weight).sum() / (2 * h * w))
    return torch.stack(terms).sum()


class DELTA(Regularizer):
    """alpha times :func:`delta` of the model's feature maps, and 1/2 beta ||w||^2 on the head.

    The reference runs on every step's images, in eval mode and without gradient, whatever mode the model or this
    module is in. It is no part of the state dict (it is the pre-trained network, which a resumed run has again), but
    it follows ``.to()``. The channel weights are buffers.

    Args:
        model: In training; converted before or after.
        reference: A deep copy of the model as it was pre-trained; it is frozen here. What becomes of the model later,
            converted layers and moving statistics included, does not reach it. It runs faster once
            :func:`stochnorm.nn.fold.fold_batch_norm` has been through it, as in the main job.
        head: The new layers, or the one, whose parameters beta shrinks, bias included; may be empty.
        layers: Whose outputs are compared, as in ``model.named_modules()``; see
            :func:`stochnorm.nn.hooks.stages.stage_names`.
        weights: W of each layer, (c,); see :mod:`stochnorm.regularizers.attention`. None is 1/c.
        alpha: Strength of the feature maps' term. The published 0.01 is for ResNet's last convolution in each stage,
            before its normalization, whose values are smaller; on whole stages training diverges with it.
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
                "the reference shares tensors with the model, so it would be trained along: give copy.deepcopy(model)"
            )
        self.layers = check_layers(model, layers)
        self.alpha, self.beta = alpha, beta
        self._head = as_modules(head)
        # In tuples, since what is an attribute of its own would be a child: trained, saved, switched to training mode.
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
        """The penalty of a step, whose images the model has just been given.

        Raises:
            ValueError: The model has not been given them; or no feature map has a gradient, so that nothing is held.
        """
        live, fixed = self._taps
        self._check(live.values, len(step.inputs))
        with torch.no_grad():
            self.reference.eval()(step.inputs)
        maps, reference_maps = ([tap.values[layer] for layer in self.layers] for tap in (live, fixed))
        for tap in self._taps:
            tap.values.clear()  # the graph and the maps of a step are not kept till the next one
        weights = None if self._sizes is None else self.channel_weights.split(self._sizes)  # type: ignore[no-untyped-call]
        penalty = self.alpha * delta(maps, reference_maps, weights) / step.share  # a sum over the batch
        for parameter in (p for module in self._head for p in module.parameters()):
            penalty = penalty + self.beta / 2 * wide(parameter).square().sum()
        return penalty

    def _check(self, maps: Mapping[str, Tensor], images: int) -> None:
        missing = [layer for layer in self.layers if layer not in maps]
        if len(missing) == len(self.layers):
            raise ValueError(
                "DELTA takes the feature maps of the model's last forward pass: call model(step.inputs) first; a copy "
                "of the model, or of DELTA, needs a DELTA of its own"
            )
        if missing:
            raise ValueError(
                f"the model's last forward pass did not call {', '.join(missing)}: gradient checkpointing runs what is "
                "in a container, not the container; turn it on before stage_names looks, or name layers that run"
            )
        if (given := {len(of_layer) for of_layer in maps.values()}) != {images}:
            raise ValueError(
                f"the model's last forward pass was of {given.pop()} images, the step has {images}; call the model on "
                "other images after DELTA, not before"
            )
        if self.alpha and torch.is_grad_enabled() and not any(of_layer.requires_grad for of_layer in maps.values()):
            raise ValueError(
                "no feature map that DELTA compares has a gradient, so it would hold nothing: unfreeze the backbone, "
                "checkpoint with use_reentrant=False, or set alpha to 0"
            )

    def close(self) -> None:
        """Takes the hooks off the model."""
        for tap in self._taps:
            tap.close()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.reference._apply(fn)  # type: ignore[no-untyped-call]  # what .to() is made of
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


def _storages(model: nn.Module) -> set[int]:
    """Return what tells apart the memory of a model's tensors, on any device."""
    tensors = (*model.parameters(), *model.buffers())
    return {tensor.untyped_storage()._cdata for tensor in tensors if tensor.numel()}
