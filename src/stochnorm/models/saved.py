"""A classifier in one file."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.files import atomic_path
from stochnorm.models.backbones import find_backbone
from stochnorm.models.build import assemble
from stochnorm.models.classifier import Classifier
from stochnorm.models.weights import load_weights
from stochnorm.nn import convert_batch_instance

__all__ = ["load_classifier", "save_classifier"]


def save_classifier(path: Path, classifier: Classifier, notes: dict[str, Any]) -> None:
    """Write a safetensors file that :func:`load_classifier` needs nothing beside, atomically.

    Args:
        path: The file.
        classifier: The model, with class names and preprocessing. StochNorm is saved as the BatchNorm that it is in
            evaluation; auxiliary heads are saved too, to fine-tune on from this file.
        notes: What else the file's metadata shall say; JSON. ``normalization: "bin"`` is read by
            :func:`load_classifier`: layers with a ``rho`` are Batch-Instance Normalization.
    """
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
    with atomic_path(path) as temporary:
        try:
            # One key, as several would be in another order each time: the same model is the same bytes.
            save_file(tensors, temporary, metadata={"stochnorm": json.dumps(about)})
        except SafetensorError as error:  # a full disk, among others
            raise OSError(errno.EIO, str(error)) from error


def load_classifier(path: str | Path) -> Classifier:
    """Read a run's directory, or its ``model.safetensors``: in eval mode, on the CPU, without auxiliary heads.

    The layers are plain BatchNorm, or Batch-Instance Normalization if the file says so.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no file that :func:`save_classifier` wrote.
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such model; give a directory that stochnorm finetune made")
    try:
        with safe_open(file, "pt") as content:
            about = json.loads((content.metadata() or {}).get("stochnorm", "null"))
            state = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: not a model of stochnorm, or a damaged one ({error}); {_MEND}") from error
    if about is None:
        raise ValueError(f"{file}: a weight file without stochnorm's class names; {_MEND}")
    try:
        preprocessing = Preprocessing(**about["preprocessing"])
        backbone, weights, classes = about["backbone"], about["weights"], tuple(about["classes"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: was saved by another version of stochnorm ({error}); {_MEND}") from error

    classifier = assemble(backbone, "random", classes, image_size=preprocessing.image_size, seed=0, auxiliary=False)
    if about.get("normalization") == "bin":
        convert_batch_instance(classifier.model, where=lambda name, _: f"{name}.rho" in state)
    load_weights(classifier.model, state, (), str(file), backbone, optional=find_backbone(backbone).branches)
    classifier.model.eval()
    classifier.weights = weights
    classifier.preprocessing = preprocessing
    classifier.multi_label = bool(about.get("multi_label", False))
    return classifier


_MEND = "give a run of stochnorm finetune, or its model.safetensors (a file of weights alone goes to --weights)"
