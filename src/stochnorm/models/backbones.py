"""Networks of timm and torchvision by name, and the input that each expects."""

from __future__ import annotations

import difflib
import warnings
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from timm.layers.drop import DropPath
from torch import nn

from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.models.small import SMALL
from stochnorm.text import some

__all__ = ["Backbone", "find_backbone", "native_image_size"]

# Auxiliary classifiers: names of the branches, and the weight of their losses relative to the main one. Inception-v3:
# 0.4 as in torchvision and TF-Slim; GoogLeNet: 0.3, Szegedy et al. 2015 (arXiv:1409.4842), section 5.
_AUXILIARY = {
    ("torchvision", "inception_v3"): (("AuxLogits",), 0.4),
    ("torchvision", "googlenet"): (("aux1", "aux2"), 0.3),
    ("timm", "inception_v3"): (("AuxLogits",), 0.4),
    ("small", "inception_v3"): (("AuxLogits",), 0.4),
}


class Backbone(NamedTuple):
    """A network of a library, by name."""

    library: str
    """timm, torchvision, or small (the module `stochnorm.models.small`)."""
    name: str
    """Name in the library."""

    @property
    def branches(self) -> tuple[str, ...]:
        """Modules of its auxiliary classifiers, which run only in training."""
        return _AUXILIARY.get((self.library, self._architecture), ((), 0.0))[0]

    @property
    def auxiliary_weight(self) -> float:
        """Weight of the loss of each auxiliary classifier; 0 without one."""
        return _AUXILIARY.get((self.library, self._architecture), ((), 0.0))[1]

    @property
    def image_size(self) -> int:
        """Side of the images that its weights were trained on, pixels."""
        if self.library == "small":
            return SMALL[self.name].image_size
        about = self._about
        return int(about.input_size[-1] if self.library == "timm" else about.crop_size[0])

    def preprocessing(self, image_size: int) -> Preprocessing:
        """Return the preprocessing that its weights expect, for images of the given size."""
        about = self._about
        interpolation = getattr(about.interpolation, "value", about.interpolation)
        if interpolation not in ("bilinear", "bicubic"):
            interpolation = "bilinear"
        return Preprocessing(image_size, tuple(about.mean), tuple(about.std), interpolation)

    def check_drop_path(self, rate: float) -> None:
        """Raise ValueError if the network has no stochastic depth, for a rate above 0."""
        if rate and not (self.library == "timm" and self._drops_path(rate)):
            raise ValueError(
                f"drop_path {rate:g} needs a network of timm with stochastic depth, which {self.library}'s {self.name} "
                "is not; remove it, or choose another backbone, such as tf_efficientnet_lite0 or resnet50"
            )

    def create(self, *, pretrained: bool, auxiliary: bool, drop_path: float = 0.0) -> nn.Module:
        """Create the network with its 1000 classes, and download its weights if `pretrained`."""
        if self.library == "small":
            if pretrained:
                raise ValueError("it has none; use --weights random")
            return SMALL[self.name].create(auxiliary)
        options: dict[str, Any] = {"aux_logits": auxiliary} if self.branches else {}
        model: nn.Module
        if drop_path:
            options["drop_path_rate"] = drop_path
        if self.library == "timm":
            model = timm.create_model(self.name, pretrained=pretrained, **options)
            if self.branches and auxiliary:
                model.register_forward_pre_hook(_auxiliary_in_training)
            return model
        model = torchvision.models.get_model(self.name, weights="DEFAULT" if pretrained else None, **options)
        if hasattr(model, "transform_input"):  # the weights of Inception-v3 and GoogLeNet expect it, those of files too
            model.transform_input = True  # type: ignore[assignment]
        return model

    def _drops_path(self, rate: float) -> bool:
        try:
            with torch.device("meta"):
                model = timm.create_model(self.name, drop_path_rate=rate)
        except TypeError:  # no such argument
            return False
        return any(isinstance(module, DropPath) for module in model.modules())

    @property
    def _architecture(self) -> str:
        """Its name without timm's tag of the weights."""
        return self.name.partition(".")[0]

    @property
    def _about(self) -> Any:
        """The library's description of its weights."""
        if self.library == "timm":
            return timm.get_pretrained_cfg(self.name)
        return torchvision.models.get_model_weights(self.name).DEFAULT.transforms()


def find_backbone(backbone: str) -> Backbone:
    """Find the library of a backbone's name.

    Args:
        backbone: A name of timm or torchvision. A name of both means timm's; `torchvision/NAME` means the other.
            `small/NAME` is a network of `stochnorm.models.small`.

    Raises:
        ValueError: Neither library has the name, or timm has no such weights; the message suggests names.
    """
    prefix, _, name = backbone.rpartition("/")
    names = {"timm": timm.list_models(), "torchvision": torchvision.models.list_models(module=torchvision.models)}
    if prefix in ("", "timm") and timm.is_model(name):
        return Backbone("timm", _timm_name(name))
    if prefix in ("", "torchvision") and name in names["torchvision"]:
        return Backbone("torchvision", name)
    if prefix == "small" and name in SMALL:
        return Backbone("small", name)
    known = {*names["timm"], *(f"torchvision/{other}" for other in names["torchvision"])}
    asked = name if prefix in ("", "timm") else backbone
    near = difflib.get_close_matches(asked, known, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"unknown backbone {backbone!r}: neither timm nor torchvision has it{hint}")


def native_image_size(backbone: str) -> int:
    """Return the side of the images that a backbone's weights were trained on, in pixels, without building it.

    Raises:
        ValueError: The backbone is unknown.

    Example:
        >>> native_image_size("torchvision/inception_v3"), native_image_size("torchvision/resnet50")
        (299, 224)
    """
    return find_backbone(backbone).image_size


def _timm_name(name: str) -> str:
    """Return the name under which timm describes the weights."""
    try:
        if timm.get_pretrained_cfg(name) is not None:
            return name
    except RuntimeError:
        architecture = name.partition(".")[0]
        tags = timm.list_pretrained(f"{architecture}.*")
        raise ValueError(f"timm has no weights {name!r}; choose {some([architecture, *tags])}") from None
    with torch.device("meta"), warnings.catch_warnings():  # an old name, such as gluon_resnet50_v1b
        warnings.simplefilter("ignore", UserWarning)
        about: Any = timm.create_model(name).pretrained_cfg
    return f"{about['architecture']}.{about['tag']}"


def _auxiliary_in_training(model: nn.Module, _: object) -> None:
    """Turn the auxiliary classifier off in evaluation; timm's Inception-v3 would run it and return both logits."""
    model.aux_logits = model.training  # type: ignore[assignment]
