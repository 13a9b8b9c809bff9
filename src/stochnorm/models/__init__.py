"""Networks to fine-tune: pre-trained backbones of timm or torchvision with a new head."""

from stochnorm.models.backbones import native_image_size
from stochnorm.models.build import build_classifier, check_forward
from stochnorm.models.classifier import Classifier
from stochnorm.models.heads import pooled
from stochnorm.models.parameters import parameter_groups
from stochnorm.models.saved import load_classifier, save_classifier

__all__ = [
    "Classifier",
    "build_classifier",
    "check_forward",
    "load_classifier",
    "native_image_size",
    "parameter_groups",
    "pooled",
    "save_classifier",
]
