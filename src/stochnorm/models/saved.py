"""A classifier in a file."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.files import atomic_path, refuse_url
from stochnorm.models.backbones import find_backbone
from stochnorm.models.build import assemble
from stochnorm.models.classifier import Classifier
from stochnorm.models.digest import check_digest, with_digest
from stochnorm.models.weights import batch_instance_layers, load_weights
from stochnorm.nn import convert_batch_instance

__all__ = ["hold_classifier", "load_classifier", "save_classifier"]


def save_classifier(path: Path, classifier: Classifier, notes: dict[str, Any]) -> None:
    """Write a safetensors file with all that [stochnorm.models.saved.load_classifier][] needs, atomically.

    Args:
        path: The file.
        classifier: Model, class names and preprocessing. StochNorm is saved as the BatchNorm that it is in evaluation.
            Auxiliary heads are saved too, so that a run can start from the file.
        notes: Further metadata of the file; JSON.
    """
    hold_classifier(classifier, notes)(path)


def hold_classifier(classifier: Classifier, notes: dict[str, Any]) -> Callable[[Path], None]:
    """Copy a classifier to the CPU, and return a function that writes the copy as `save_classifier` does."""
    about = {
        "backbone": classifier.backbone,
        "weights": classifier.weights,
        "classes": classifier.classes,
        "multi_label": classifier.multi_label,
        "preprocessing": classifier.preprocessing.as_dict(),
        **notes,
    }
    tensors = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in classifier.model.state_dict().items()
    }
    return partial(_write, tensors, about)


def _write(tensors: dict[str, Tensor], about: dict[str, Any], path: Path) -> None:
    """Write the file, and read it back before it replaces an earlier one."""
    with atomic_path(path) as temporary:
        try:
            # One key, since several are written in random order: the same model gives the same bytes.
            # Not save_file, whose own temporary file would stay where the process is killed.
            temporary.write_bytes(save(tensors, metadata={"stochnorm": with_digest(about, tensors)}))
            check_digest(path, *_read(temporary))
        except (SafetensorError, ValueError) as error:  # a full disk, among others
            raise OSError(errno.EIO, str(error)) from error


def _read(file: Path) -> tuple[Any, dict[str, Tensor]]:
    """Return metadata and tensors of a file; the first is None without metadata of ours."""
    with safe_open(file, "pt") as content:
        about = json.loads((content.metadata() or {}).get("stochnorm", "null"))
        state = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 (not a mapping)
    return about, state


def load_classifier(path: str | os.PathLike[str]) -> Classifier:
    """Load the model of a run directory or a `model.safetensors`: in eval mode, on the CPU, without auxiliary heads.

    It is an `nn.Module`: `model(model.preprocess(images))` gives logits.

    The layers are BatchNorm, or Batch-Instance Normalization where the file has its parameters.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: [stochnorm.models.saved.save_classifier][] did not write the file, or it is damaged.
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        refuse_url(path)
        raise FileNotFoundError(f"{file}: no such model; choose a run directory")
    try:
        about, state = _read(file)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{file}: not a model saved by stochnorm, or damaged ({error}); {_REMEDY}") from error
    check_digest(file, about, state)
    if about is None:
        raise ValueError(f"{file}: a weight file without class names; {_REMEDY}")
    try:
        preprocessing = Preprocessing(**about["preprocessing"])
        backbone, weights, classes = str(about["backbone"]), about["weights"], tuple(about["classes"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: saved by another version of stochnorm ({error}); {_REMEDY}") from error

    classifier = assemble(backbone, "random", classes, image_size=preprocessing.image_size, seed=0, auxiliary=False)
    if layers := batch_instance_layers(state):
        convert_batch_instance(classifier.model, where=lambda name, _: name in layers)
    load_weights(classifier.model, state, (), str(file), backbone, optional=find_backbone(backbone).branches)
    classifier.model.eval()
    classifier.weights = weights
    classifier.preprocessing = preprocessing
    classifier.multi_label = bool(about.get("multi_label", False))
    return classifier


_REMEDY = "use a run directory or its model.safetensors (for a file of weights alone use --weights)"
