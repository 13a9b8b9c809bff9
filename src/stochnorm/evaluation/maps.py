"""Where in an image a network sees a class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stochnorm.models import Classifier
from stochnorm.nn.hooks.modes import evaluating
from stochnorm.nn.hooks.stages import stage_names
from stochnorm.nn.hooks.taps import OutputTap

__all__ = ["activation_maps"]

_STAGES = 2  # the last ones: the first of them has four times the positions
_CONTRAST = 2.0  # gamma of the paper, for stages before the last


def activation_maps(classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
    r"""Return how much each pixel speaks for a class, by the gradient of its logit (LayerCAM).

    For the feature maps $A_c$ of a stage and the logit y of the target, the map is

    $$M = \mathrm{relu} \sum_c \mathrm{relu}(\partial y / \partial A_c) \, A_c,$$

    divided by its largest value; that of the stage before the last goes through tanh(2 M). Both maps are enlarged to
    the image, and the larger one counts at each pixel.

    Args:
        classifier: The network; its parameters get no gradients.
        images: (n, 3, s, s), normalized as the network takes them, on its device.
        targets: (n,) class numbers.

    Returns:
        (n, s, s), in [0, 1], float32; all 0 where nothing speaks for the class.

    Raises:
        ValueError: The network is not a chain of convolutional stages.

    Source: Jiang et al., LayerCAM, IEEE Transactions on Image Processing 2021, equations 6 to 8.
    """
    model, size = classifier.model, images.shape[-1]
    names = stage_names(model, count=_STAGES, image_size=size, head=classifier.head)
    with torch.enable_grad(), evaluating(model), OutputTap(model, names) as tap:
        logits, _ = classifier.outputs(model(images.detach().requires_grad_()))
        features = [tap.values[name] for name in names]
        gradients = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), features)
    seen = torch.zeros(len(images), size, size, device=images.device)
    for name, feature, gradient in zip(names, features, gradients, strict=True):
        weighted = (gradient.detach().relu() * feature.detach()).sum(1, keepdim=True).relu().float()
        enlarged = F.interpolate(_scaled(weighted), (size, size), mode="bilinear")[:, 0]
        seen = torch.maximum(seen, enlarged if name == names[-1] else (_CONTRAST * enlarged).tanh())
    return _scaled(seen[:, None])[:, 0]


def _scaled(maps: Tensor) -> Tensor:
    """Return maps (n, 1, h, w) divided by their largest values."""
    most = maps.amax((2, 3), keepdim=True)
    return maps / torch.where(most > 0, most, torch.ones_like(most))
