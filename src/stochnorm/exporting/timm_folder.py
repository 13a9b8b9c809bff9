"""A folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` loads, and the Hugging Face Hub shows."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from stochnorm.exporting.about import KEY
from stochnorm.models import Classifier
from stochnorm.models.backbones import find_backbone

__all__ = ["check_folder", "check_timm", "write_timm"]

_FILES = {"config.json", "model.safetensors", "README.md"}
_CROP_MODES = {"squash": "squash", "crop": "center", "pad": "border"}


def check_timm(classifier: Classifier) -> None:
    """Raise ValueError if timm has no such network."""
    found = find_backbone(classifier.backbone)
    if found.library != "timm":
        raise ValueError(
            f"format timm needs a network of timm, got {found.library}'s {found.name}; use onnx, torch or safetensors"
        )


def check_folder(folder: Path) -> None:
    """Raise an error unless a folder can be written: it is new, empty, or one that stochnorm wrote.

    Raises:
        FileExistsError: It is a file, or a folder of other things.
        FileNotFoundError: The folder around it does not exist.
    """
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"cannot write {folder}: the folder {folder.parent} does not exist; make it first")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise FileExistsError(f"cannot write {folder}: it is no folder; choose another name")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not names:
        return
    config = folder / "config.json"
    if names - _FILES or not config.is_file() or KEY not in config.read_text(encoding="utf-8", errors="replace"):
        raise FileExistsError(
            f"cannot write {folder}: it holds files that are no model that stochnorm wrote; choose another folder"
        )


def write_timm(
    classifier: Classifier, network: nn.Module, about: dict[str, Any], card: str, folder: Path, *, half: bool
) -> None:
    """Write the folder: weights, configuration and model card. It is there as a whole or not at all.

    timm's own transform for it (`timm.data.create_transform`) resizes as the run did: with `squash` to a square.
    """
    from timm.models import save_for_hf

    check_folder(folder)
    wanted = classifier.preprocessing
    size = (3, wanted.input_size, wanted.input_size)
    config: dict[str, Any] = {
        "label_names": list(classifier.classes),
        KEY: about,
    }
    data = {
        "input_size": size,
        "mean": tuple(wanted.mean),
        "std": tuple(wanted.std),
        "interpolation": wanted.interpolation,
        "crop_pct": wanted.input_size / wanted.resize,
        "crop_mode": _CROP_MODES[wanted.fit],
    }
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        half_written = Path(temporary) / "new"
        model: Any = network.half() if half else network
        save_for_hf(model, str(half_written), model_config=config, safe_serialization=True, data_config=data)
        (half_written / "README.md").write_text(card, encoding="utf-8")
        json.loads((half_written / "config.json").read_text(encoding="utf-8"))
        if folder.is_dir():
            folder.replace(Path(temporary) / "old")
        half_written.replace(folder)
