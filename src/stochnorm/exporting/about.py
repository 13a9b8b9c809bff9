"""What a file says about its model: the metadata of every format."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from stochnorm.models import Classifier

__all__ = ["KEY", "about_of", "as_texts", "licence_of", "threshold_of"]

KEY = "stochnorm.export"
"""Where a file has the metadata as one JSON text."""

_LICENCES = {"bundled": "apache-2.0", "random": ""}


def threshold_of(classifier: Classifier) -> float | None:
    """Return the probability from which on a finding is present; None where the most probable class is the answer."""
    return 0.5 if classifier.multi_label else None


def licence_of(classifier: Classifier) -> str:
    """Return the licence of the weights that a run began with, as an identifier of SPDX in lower case.

    Returns:
        Empty for random weights, which nobody has made before; `unknown` where no library says it.
    """
    if classifier.weights in _LICENCES:
        return _LICENCES[classifier.weights]
    if classifier.weights == "pretrained":
        import timm

        from stochnorm.models.backbones import find_backbone

        found = find_backbone(classifier.backbone)
        about = timm.get_pretrained_cfg(found.name) if found.library == "timm" else None
        return str(getattr(about, "license", None) or "unknown")
    return "unknown"


def about_of(
    classifier: Classifier, *, name: str, raw: bool, fold: bool, precision: str, output: str
) -> dict[str, Any]:
    """Return the metadata, ready for JSON.

    Args:
        classifier: The model.
        name: Name of the run.
        raw: Whether the preprocessing is in the graph.
        fold: Whether BatchNorm is folded.
        precision: fp32, fp16 or int8.
        output: `probabilities` or `logits`.
    """
    wanted = classifier.preprocessing
    if raw:
        shape: dict[str, Any] = {"dtype": "uint8", "shape": ["batch", "height", "width", 3], "colours": "RGB"}
    else:
        side = wanted.input_size
        shape = {"dtype": "float32", "shape": ["batch", 3, side, side], "colours": "RGB"}
    return {
        "made_by": f"stochnorm {version('stochnorm')}",
        "run": name,
        "backbone": classifier.backbone,
        "classes": list(classifier.classes),
        "multi_label": classifier.multi_label,
        "threshold": threshold_of(classifier),
        "input": shape,
        "output": output,
        "preprocessing": {
            "in_graph": raw,
            "fit": wanted.fit,
            "resize": wanted.resize,
            "crop": wanted.input_size,
            "interpolation": wanted.interpolation,
            "antialias": True,
            "scale": 1 / 255,
            "mean": list(wanted.mean),
            "std": list(wanted.std),
            "flip": wanted.flip,
        },
        "precision": precision,
        "batch_norm": "folded" if fold else "plain",
        "weights": classifier.weights if classifier.weights in ("bundled", "pretrained", "random") else "file",
        "weights_licence": licence_of(classifier) or "none",
    }


def as_texts(about: dict[str, Any]) -> dict[str, str]:
    """Return each value as a text: JSON, except for texts, which stay."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}
