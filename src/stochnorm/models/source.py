"""The source head: the classifier that a backbone was pre-trained with, which the new head replaced."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stochnorm.models.backbones import find_backbone
from stochnorm.models.classifier import Classifier
from stochnorm.models.weights import bundled_state_dict, read_state_dict, weight_file, weight_part
from stochnorm.nn.fold import fold_batch_norm

__all__ = ["source_head", "source_network"]


def source_head(classifier: Classifier) -> nn.Linear:
    """Return the classifier that came with the weights, from the features of the new head to the source classes.

    For bundled and pretrained weights the source classes are the 1000 of ImageNet; for a file or a run they are those
    of its own classifier.

    Args:
        classifier: A classifier with the weights that it was built with.

    Returns:
        A linear layer (d, source classes), float32, on the CPU.

    Raises:
        ValueError: The weights are random, the file has no classifier, or it is not one linear layer.

    Example:
        >>> from stochnorm.models.build import build_classifier
        >>> source_head(build_classifier("tf_efficientnet_lite0", "bundled", ("cat", "dog")))
        Linear(in_features=1280, out_features=1000, bias=True)
    """
    name, new = classifier.head_name, classifier.head[0]
    if classifier.weights == "random":
        raise ValueError(
            "random weights have no source classes, which this method needs; use --weights bundled, pretrained, or a "
            "file with its classifier"
        )
    if len(classifier.head) > 1 or not isinstance(new, nn.Linear):
        raise ValueError(
            f"the classifier of {classifier.backbone} is not one linear layer, which this method needs; choose another "
            "backbone or method"
        )
    weight, bias = _tensors(_state(classifier), name)
    if weight is None or weight.shape[1:] != new.weight.shape[1:]:
        raise ValueError(
            f"{classifier.weights} has no classifier {name} for {new.in_features} features, which this method needs; "
            "use weights with their classifier, such as --weights pretrained"
        )
    with torch.random.fork_rng(devices=()):  # its first values are drawn
        head = nn.Linear(new.in_features, len(weight), bias=bias is not None)
    with torch.no_grad():
        head.weight.copy_(weight)
        if bias is not None:
            head.bias.copy_(bias)
    return head


def source_network(classifier: Classifier, head: nn.Module) -> nn.Module:
    """Return a frozen copy of the network as it is, from images to the logits of a copy of the source head.

    It is in eval mode, on the device of the network, and its BatchNorm is folded into the convolutions, which is
    faster.
    """
    network = copy.deepcopy(classifier.model)
    network.set_submodule(classifier.head_name, copy.deepcopy(head))
    network.eval().requires_grad_(False)
    fold_batch_norm(network)
    return network


def _state(classifier: Classifier) -> Mapping[str, Tensor]:
    """Read the tensors of the weights, with their classifier."""
    weights = classifier.weights
    if weights not in ("bundled", "pretrained"):
        return read_state_dict(weight_file(weights), weight_part(weights))
    backbone = find_backbone(classifier.backbone)
    with torch.random.fork_rng(devices=()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = backbone.create(pretrained=weights == "pretrained", auxiliary=True)
    return bundled_state_dict(model) if weights == "bundled" else model.state_dict()


def _tensors(state: Mapping[str, Any], name: str) -> tuple[Tensor | None, Tensor | None]:
    """Return weight and bias of the classifier; in a file its name may have a prefix."""
    keys = [key for key in state if f".{key}".endswith(f".{name}.weight")]
    if len(keys) != 1:
        return None, None
    return state[keys[0]], state.get(f"{keys[0].removesuffix('weight')}bias")
