"""Fine-tune pre-trained ConvNets on small image data sets: Stochastic Normalization (NeurIPS 2020) for PyTorch.

The layer and the conversion need torch alone; what fine-tunes is imported at its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stochnorm.nn import StochNorm1d, StochNorm2d, StochNorm3d, convert, restore, stoch_norm, update_statistics

if TYPE_CHECKING:
    from stochnorm.config import FinetuneConfig
    from stochnorm.job import Result, finetune
    from stochnorm.models import build_classifier, load_classifier
    from stochnorm.prediction import Prediction, predict

__version__ = "0.1.0"

__all__ = [
    "FinetuneConfig",
    "Prediction",
    "Result",
    "StochNorm1d",
    "StochNorm2d",
    "StochNorm3d",
    "build_classifier",
    "convert",
    "finetune",
    "load_classifier",
    "predict",
    "restore",
    "stoch_norm",
    "update_statistics",
]

_LAZY = {
    "FinetuneConfig": "stochnorm.config",
    "Prediction": "stochnorm.prediction",
    "Result": "stochnorm.job",
    "build_classifier": "stochnorm.models",
    "finetune": "stochnorm.job",
    "load_classifier": "stochnorm.models",
    "predict": "stochnorm.prediction",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'stochnorm' has no attribute {name!r}")
