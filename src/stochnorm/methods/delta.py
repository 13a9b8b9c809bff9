"""DELTA (Li et al., ICLR 2019)."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from stochnorm.methods.method import Method, Setup
from stochnorm.methods.ranges import Range, Search

if TYPE_CHECKING:
    from torch import Tensor

    from stochnorm.regularizers import Regularizer

__all__ = ["DELTA", "DELTAConfig"]

_ATTENTION_BATCH = 32  # images, as in the paper


@dataclass(frozen=True)
class DELTAConfig:
    """Method delta: penalty on the distance of feature maps to those of the pre-trained network."""

    alpha: Annotated[float, Range(0), Search(1e-6, 1e-2)] = 1e-4
    """Strength of the penalty on the feature maps, summed over the batch.
    (The published 0.01 is for other layers, see docs/methods/delta.md.)"""
    beta: Annotated[float, Range(0)] = 0.01
    """Strength of the weight decay of the new head."""
    attention: Literal["channel", "uniform"] = "channel"
    """Channel weights: measured by the loss without each channel (cached), or all equal."""
    attention_images: Annotated[int, Range(1)] = 320
    """Training images that channel attention is measured on, in batches of 32."""
    layers: tuple[str, ...] = ()
    """Names of the layers to compare; empty for the last four stages."""


class DELTA(Method):
    """Penalize the distance of feature maps to those of the pre-trained network."""

    name = "delta"
    title = "DELTA"
    acts_on = "loss"
    what = "hold the feature maps near the pre-trained network's, by channel attention"
    source = "Li et al., ICLR 2019"
    group = DELTAConfig
    replaces_weight_decay = True

    def describe(self, settings: DELTAConfig) -> str:
        """Return strengths and kind of attention."""
        return f"alpha={settings.alpha:g} beta={settings.beta:g} {settings.attention} attention"

    def apply(self, setup: Setup, settings: DELTAConfig) -> Regularizer:
        """Return the penalty; its reference is a copy of the model as it is."""
        from stochnorm import regularizers
        from stochnorm.nn.fold import fold_batch_norm
        from stochnorm.nn.hooks.stages import check_layers, stage_names

        classifier = setup.classifier
        model, size = classifier.model, classifier.preprocessing.image_size
        if settings.layers:
            layers = check_layers(model, settings.layers)
        else:
            layers = stage_names(model, image_size=size, head=classifier.new_layers)
        weights = _attention(setup, settings, layers) if settings.attention == "channel" else None
        reference = copy.deepcopy(model).eval()
        fold_batch_norm(reference, keep=layers)
        return regularizers.DELTA(
            model,
            reference,
            classifier.new_layers,
            layers=layers,
            weights=weights,
            alpha=settings.alpha,
            beta=settings.beta,
        )


def _attention(setup: Setup, settings: DELTAConfig, layers: list[str]) -> dict[str, Tensor]:
    """Return the channel weights of each layer, from the cache if nothing they depend on has changed."""
    import torch

    from stochnorm.data.splits import generator
    from stochnorm.files import cache_directory
    from stochnorm.regularizers.attention import channel_attention
    from stochnorm.regularizers.attention_cache import attention_key, cached_attention

    classifier = setup.classifier
    order = torch.randperm(setup.train_images, generator=generator("attention", setup.seed)).tolist()
    batches = setup.crops(order, _ATTENTION_BATCH)
    measured = math.ceil(settings.attention_images / _ATTENTION_BATCH)
    dependencies = {
        "layers": layers,
        "preprocessing": classifier.preprocessing.as_dict(),
        "measured": measured,
        "net": classifier.backbone,
    }
    key = attention_key(classifier.model, batches.content(), dependencies)
    head: Any = classifier.head[0]
    return cached_attention(
        cache_directory("attention"),
        key,
        lambda: channel_attention(classifier.model, head, layers, batches, measured=measured, progress=setup.progress),
    )
