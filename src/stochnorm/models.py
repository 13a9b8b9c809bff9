"""A pre-trained backbone of timm or torchvision with a new head."""

from __future__ import annotations

import difflib
import errno
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from stochnorm.data.preprocessing import Preprocessing
from stochnorm.files import atomic_path
from stochnorm.weights import BUNDLED, bundled_state_dict, load_weights, read_state_dict

__all__ = ["Classifier", "build_classifier", "load_classifier", "save_classifier"]


@dataclass
class Classifier:
    """A network and what belongs to it."""

    model: nn.Module
    """Images (b, 3, s, s) to logits (b, num_classes)."""
    head: list[nn.Module]
    """The new layers; one, but for backbones with two classifiers."""
    backbone: str
    weights: str
    """bundled, pretrained, random, or a file."""
    classes: tuple[str, ...]
    preprocessing: Preprocessing

    def parameter_groups(self, lr: float, head_lr_factor: float) -> list[dict[str, Any]]:
        """The backbone's and the head's parameters with their learning rates, for an optimizer."""
        head = [p for module in self.head for p in module.parameters()]
        ids = {id(p) for p in head}
        backbone = [p for p in self.model.parameters() if id(p) not in ids]
        return [{"params": backbone, "lr": lr}, {"params": head, "lr": lr * head_lr_factor}]


def build_classifier(
    backbone: str, weights: str, classes: tuple[str, ...], *, image_size: int = 224, seed: int = 0
) -> Classifier:
    """Build a backbone, load its weights, and give it a new head.

    The head is drawn from N(0, 0.01), its bias is 0 (the paper's code). Auxiliary heads (Inception-v3, GoogLeNet)
    are removed.

    Args:
        backbone: A name of timm or torchvision; a name both have is timm's, ``torchvision/NAME`` the other.
        weights: ``auto``, ``bundled``, ``pretrained``, ``random``, or a ``.safetensors`` or ``.pth`` file.
        classes: The class names.
        image_size: Side of the input, pixels.
        seed: Of the head, and of random weights. The global generator is left as it was.

    Raises:
        ValueError: Unknown backbone, or weights that do not fit it.
        FileNotFoundError: There is no such weight file.
        OSError: The download failed.
    """
    if weights == "auto":
        weights = "bundled" if backbone == BUNDLED else "pretrained"
    if weights == "bundled" and backbone != BUNDLED:
        raise ValueError(f"the bundled weights are {BUNDLED}'s; {backbone} takes pretrained, random, or a weight file")
    library, name = _find(backbone)
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.filterwarnings("ignore", message="The default weight initialization of")
        try:
            model = _create(library, name, weights == "pretrained")
        except Exception as error:
            if weights != "pretrained":
                raise
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
            raise OSError(
                f"could not get {library}'s pretrained weights of {name} ({reason}); check the network, or give a "
                f"file with --weights FILE, or use --backbone {BUNDLED}, whose weights are installed"
            ) from error
        preprocessing = _preprocessing(library, name, model, image_size)
        state = bundled_state_dict(model) if weights == "bundled" else None
        if weights not in ("bundled", "pretrained", "random"):
            state = read_state_dict(Path(weights))
        dropped = _drop_auxiliary_heads(model)
        head = _new_head(library, model, len(classes))
        if not head:
            raise ValueError(f"{backbone} has no classifier to replace; choose a classification model")
        if state is not None:
            own = [n for n, module in model.named_modules() if any(module is h for h in head)]
            source = f"{weights} weights" if weights == "bundled" else weights
            load_weights(model, state, [*own, *dropped], source, backbone)
    return Classifier(model, head, backbone, weights, classes, preprocessing)


def save_classifier(path: Path, classifier: Classifier, notes: dict[str, Any]) -> None:
    """Write a safetensors file that :func:`load_classifier` needs nothing beside, atomically.

    Args:
        path: The file.
        classifier: The model, as plain BatchNorm, with class names and preprocessing.
        notes: What else the file's metadata shall say; JSON.
    """
    about = {
        "backbone": classifier.backbone,
        "weights": classifier.weights,
        "classes": classifier.classes,
        "preprocessing": classifier.preprocessing.as_dict(),
        **notes,
    }
    tensors = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in classifier.model.state_dict().items()
    }
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt", "stochnorm": json.dumps(about)})
        except SafetensorError as error:  # a full disk, among others
            raise OSError(errno.EIO, str(error)) from error


def load_classifier(path: str | Path) -> Classifier:
    """Read a run's directory, or its ``model.safetensors``: plain BatchNorm, in eval mode, on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no file that :func:`save_classifier` wrote.
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such model; give a directory that stochnorm finetune made")
    state = read_state_dict(file)
    with safe_open(file, "pt") as content:
        about = json.loads((content.metadata() or {}).get("stochnorm", "null"))
    if about is None:
        raise ValueError(f"{file}: a weight file without stochnorm's class names; give a run of stochnorm finetune")
    preprocessing = Preprocessing(**about["preprocessing"])
    classifier = build_classifier(
        about["backbone"], "random", tuple(about["classes"]), image_size=preprocessing.image_size
    )
    load_weights(classifier.model, state, [], str(file), classifier.backbone)
    classifier.model.eval()
    classifier.preprocessing = preprocessing
    return classifier


def _find(backbone: str) -> tuple[str, str]:
    """The library and the name in it."""
    prefix, _, name = backbone.rpartition("/")
    names = {
        "timm": timm.list_models(),
        "torchvision": torchvision.models.list_models(module=torchvision.models),
    }
    if prefix in ("", "timm") and timm.is_model(name):
        return "timm", name
    if prefix in ("", "torchvision") and name in names["torchvision"]:
        return "torchvision", name
    near = difflib.get_close_matches(name, names["timm"] + names["torchvision"], n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"unknown backbone {backbone!r}: neither timm nor torchvision has it{hint}")


def _create(library: str, name: str, pretrained: bool) -> nn.Module:
    model: nn.Module
    if library == "timm":
        model = timm.create_model(name, pretrained=pretrained)
    else:
        model = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None)
        if hasattr(model, "transform_input"):  # what the weights of Inception-v3 and GoogLeNet expect, wherever from
            model.transform_input = True  # type: ignore[assignment]
    return model


def _preprocessing(library: str, name: str, model: nn.Module, image_size: int) -> Preprocessing:
    if library == "timm":
        about: Any = model.pretrained_cfg
        return Preprocessing(image_size, tuple(about["mean"]), tuple(about["std"]), _supported(about["interpolation"]))
    about = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return Preprocessing(image_size, tuple(about.mean), tuple(about.std), _supported(about.interpolation.value))


def _supported(interpolation: str) -> str:
    return interpolation if interpolation in ("bilinear", "bicubic") else "bilinear"


def _drop_auxiliary_heads(model: nn.Module) -> list[str]:
    """Removes the extra heads of torchvision's Inception-v3 and GoogLeNet; returns their names."""
    names = [name for name in ("AuxLogits", "aux1", "aux2") if isinstance(getattr(model, name, None), nn.Module)]
    for name in names:
        setattr(model, name, None)
        model.aux_logits = False  # type: ignore[assignment]
    return names


def _new_head(library: str, model: nn.Module, num_classes: int) -> list[nn.Module]:
    if library == "timm":
        model.reset_classifier(num_classes)  # type: ignore[operator]
        classifier: Any = model.get_classifier()  # type: ignore[operator]
        head = [m for m in (classifier if isinstance(classifier, tuple) else (classifier,)) if list(m.parameters())]
    else:
        head = [_replace(model, name, num_classes) for name in _classifiers(model)]
    for layer in (layer for module in head for layer in module.modules()):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return head


def _classifiers(model: nn.Module) -> list[str]:
    """Names of the layers with ImageNet's 1000 outputs in a torchvision model; the last one is the classifier."""
    return [
        name
        for name, layer in model.named_modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == 1000)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == 1000)
    ][-1:]


def _replace(model: nn.Module, name: str, num_classes: int) -> nn.Module:
    old = model.get_submodule(name)
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, num_classes)
    else:
        assert isinstance(old, nn.Conv2d)
        new = nn.Conv2d(old.in_channels, num_classes, old.kernel_size)  # type: ignore[arg-type]
    model.set_submodule(name, new)
    return new
