"""Building of a classifier: backbone, weights, new head."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.errors import ran_out
from stochnorm.models.backbones import Backbone, find_backbone
from stochnorm.models.classifier import Classifier
from stochnorm.models.heads import names_of, new_heads
from stochnorm.models.kept import copy_of_kept, stamp_of
from stochnorm.models.weights import (
    BUNDLED,
    batch_instance_layers,
    bundled_state_dict,
    load_weights,
    read_notes,
    read_state_dict,
    weight_file,
    weight_part,
)
from stochnorm.nn.hooks.modes import evaluating

__all__ = ["assemble", "build_classifier", "check_forward"]


def build_classifier(
    backbone: str,
    weights: str,
    classes: tuple[str, ...],
    *,
    image_size: int | None = None,
    seed: int = 0,
    auxiliary: bool = True,
    multi_label: bool = False,
    drop_path: float = 0.0,
) -> Classifier:
    """Build a backbone with its weights and a new head, on the CPU, and check that it runs at the image size.

    The weights of the head are drawn from N(0, 0.01) and its bias is 0, as in the paper's code; the same holds for the
    heads of auxiliary classifiers.

    Args:
        backbone: A name of timm or torchvision. A name of both means timm's; `torchvision/NAME` means the other.
        weights: `auto` (`bundled` if it fits, else `pretrained`), `bundled`, `pretrained`, `random`, a `.safetensors`
            or `.pth` file, or a run directory. A model saved by stochnorm brings its mean, standard deviation,
            interpolation and image size; with another file they are those of the backbone.
        classes: Class names.
        image_size: Side of the input, pixels; None or 0: that of the weights.
        seed: Random seed for the head and for random weights. Global generators are not changed.
        auxiliary: Whether to keep the auxiliary classifiers of Inception-v3 and GoogLeNet, for training.
        multi_label: Whether an image has any number of classes instead of one.
        drop_path: Stochastic depth of networks of timm: probability that the last residual block is skipped in
            training, which falls to 0 at the first one.

    Raises:
        ValueError: The backbone is unknown or has no stochastic depth, the weights do not fit it, it cannot run at the
            image size, or there are no class names.
        FileNotFoundError: The weight file does not exist.
        OSError: The download failed.

    Example:
        >>> classifier = build_classifier("torchvision/resnet18", "random", ("cat", "dog"), image_size=64)
        >>> classifier.head
        [Linear(in_features=512, out_features=2, bias=True)]
    """
    if isinstance(classes, (int, str)) or len(set(classes)) < len(classes) or not classes:
        raise ValueError(f"classes must be different names, such as ('cat', 'dog'), got {classes!r}")
    if image_size is not None and image_size < 0:
        raise ValueError(f"image_size must be positive, or 0 for the size of the weights, got {image_size}")

    def build() -> Classifier:
        classifier = assemble(
            backbone,
            weights,
            tuple(classes),
            image_size=image_size,
            seed=seed,
            auxiliary=auxiliary,
            drop_path=drop_path,
        )
        classifier.multi_label = multi_label
        check_forward(classifier)
        return classifier

    key = (backbone, stamp_of(weights), tuple(classes), image_size, seed, auxiliary, multi_label, drop_path)
    return copy_of_kept(key, build)


def check_forward(classifier: Classifier) -> None:
    """Run two blank images through the network and its auxiliary classifiers, without changing it.

    Raises:
        ValueError: It cannot take images of its `preprocessing.image_size` or `input_size`; the message says which size
            it was made for.
    """
    test_size = classifier.preprocessing.input_size
    if test_size != classifier.preprocessing.image_size and (fault := _fault(classifier, test_size, auxiliary=False)):
        raise ValueError(
            f"{classifier.backbone} cannot take images of {test_size} px ({fault}); choose another --test-size"
        )
    size = classifier.preprocessing.image_size
    if (fault := _fault(classifier, size, auxiliary=bool(classifier.auxiliary_heads))) is None:
        return
    native = find_backbone(classifier.backbone).image_size
    remedy = "choose another backbone" if size == native else f"use --image-size {native}, which it was made for"
    who = classifier.backbone
    if classifier.auxiliary_heads and _fault(classifier, size, auxiliary=False) is None:
        who, remedy = f"the auxiliary classifier of {who}", f"{remedy}, or remove it with --no-auxiliary"
    raise ValueError(f"{who} cannot take images of {size} px ({fault}); {remedy}")


def assemble(
    backbone: str,
    weights: str,
    classes: tuple[str, ...],
    *,
    image_size: int | None,
    seed: int,
    auxiliary: bool,
    drop_path: float = 0.0,
) -> Classifier:
    """Build a classifier without running it; see [stochnorm.models.build.build_classifier][]."""
    found = find_backbone(backbone)
    found.check_drop_path(drop_path)
    bundled_fits = found == Backbone("timm", BUNDLED)
    if weights == "auto":
        weights = "bundled" if bundled_fits else "pretrained"
    if weights == "bundled" and not bundled_fits:
        raise ValueError(
            f"the bundled weights are those of {BUNDLED}; for {backbone} use pretrained, random, or a weight file"
        )
    # The model is built on the CPU, so that the generators of GPUs stay alone.
    with torch.random.fork_rng(devices=()), warnings.catch_warnings():
        torch.default_generator.manual_seed(seed)
        warnings.filterwarnings("ignore", message="The default weight initialization of")
        warnings.filterwarnings("ignore", message="auxiliary heads in the pretrained googlenet")
        try:
            model = found.create(pretrained=weights == "pretrained", auxiliary=auxiliary, drop_path=drop_path)
        except Exception as error:
            if weights != "pretrained":
                raise
            raise OSError(
                f"could not get {found.library}'s pretrained weights of {found.name} ({_reason(error)}); check the "
                f"connection, use a file with --weights FILE, or use --backbone {BUNDLED}, whose weights are installed"
            ) from error
        state = bundled_state_dict(model) if weights == "bundled" else None
        preprocessing = found.preprocessing(image_size or found.image_size)
        if weights not in ("bundled", "pretrained", "random"):
            path = weight_file(weights)
            state = read_state_dict(path, weight_part(weights))
            _check_origin(path, found, state)
            preprocessing = _preprocessing_of(path, image_size) or preprocessing
        head, auxiliary_heads = new_heads(model, len(classes), found.branches)
    if not head:
        raise ValueError(f"{backbone} has no classifier to replace; choose a classification model")
    if state is not None:
        source = f"{weights} weights" if weights == "bundled" else weights
        new = names_of(model, [*head, *auxiliary_heads])
        load_weights(model, state, new, source, backbone, optional=found.branches)
    return Classifier(
        model,
        head,
        backbone,
        weights,
        classes,
        preprocessing,
        auxiliary_heads,
        found.auxiliary_weight if auxiliary_heads else 0.0,
    )


def _check_origin(path: Path, backbone: Backbone, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError if stochnorm saved a model of another backbone, or of layers that are not BatchNorm."""
    notes = read_notes(path)
    if not notes:
        return
    if find_backbone(str(notes["backbone"])) != backbone:
        raise ValueError(f"{path} is a model of {notes['backbone']}; use --backbone {notes['backbone']}")
    if batch_instance_layers(state):
        raise ValueError(
            f"{path} has Batch-Instance Normalization, which does not become BatchNorm again; start from a run of "
            "another method"
        )


def _preprocessing_of(path: Path, image_size: int | None) -> Preprocessing | None:
    """Read the preprocessing of a model that stochnorm saved; None for another file."""
    notes = read_notes(path)
    if not notes:
        return None
    try:
        trained = Preprocessing(**notes["preprocessing"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: saved by another version of stochnorm ({error}); use another file") from error
    return replace(trained, image_size=image_size or trained.image_size, fit="squash", test_size=0, flip=False)


@torch.no_grad()
def _fault(classifier: Classifier, size: int, *, auxiliary: bool) -> str | None:
    """Return why a forward pass fails, or None if it does not."""
    model = classifier.model
    images = torch.zeros(2, 3, size, size, device=next(model.parameters()).device)
    with evaluating(model):
        model.training = auxiliary  # the network's own flag alone: its branches run, but no dropout
        try:
            logits, _ = classifier.outputs(model(images))
        except Exception as error:  # networks raise errors of many kinds for a size they were not made for
            if ran_out(error):
                raise
            return _reason(error)
    wanted = (2, len(classifier.classes))
    return None if logits.shape == wanted else f"its output is {tuple(logits.shape)} instead of {wanted}"


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
