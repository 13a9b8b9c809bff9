"""Fine-tune pre-trained ConvNets on small image data sets: Stochastic Normalization (NeurIPS 2020) for PyTorch.

The layers, the conversions and :mod:`stochnorm.regularizers` need torch alone; what fine-tunes is imported at its first
use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stochnorm.nn import (
    StochNorm1d,
    StochNorm2d,
    StochNorm3d,
    convert,
    convert_batch_instance,
    freeze,
    hold_statistics,
    initialize_statistics,
    restore,
    stoch_norm,
    unfreeze,
    update_statistics,
)

if TYPE_CHECKING:
    from stochnorm.config import FinetuneConfig
    from stochnorm.diagnosis import Diagnosis
    from stochnorm.doctor import diagnose
    from stochnorm.grid import Grid, Variant
    from stochnorm.job import Result, finetune
    from stochnorm.models import build_classifier, load_classifier
    from stochnorm.prediction import Prediction, predict
    from stochnorm.records import Record, read_records
    from stochnorm.report import write_report
    from stochnorm.sweep import Comparison, compare
    from stochnorm.tuning import Tuned, tune

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Diagnosis",
    "FinetuneConfig",
    "Grid",
    "Prediction",
    "Record",
    "Result",
    "StochNorm1d",
    "StochNorm2d",
    "StochNorm3d",
    "Tuned",
    "Variant",
    "build_classifier",
    "compare",
    "convert",
    "convert_batch_instance",
    "diagnose",
    "finetune",
    "freeze",
    "hold_statistics",
    "initialize_statistics",
    "load_classifier",
    "predict",
    "read_records",
    "restore",
    "stoch_norm",
    "tune",
    "unfreeze",
    "update_statistics",
    "write_report",
]

_LAZY = {
    "Comparison": "stochnorm.sweep",
    "Diagnosis": "stochnorm.diagnosis",
    "FinetuneConfig": "stochnorm.config",
    "Grid": "stochnorm.grid",
    "Prediction": "stochnorm.prediction",
    "Record": "stochnorm.records",
    "Result": "stochnorm.job",
    "Tuned": "stochnorm.tuning",
    "Variant": "stochnorm.grid",
    "build_classifier": "stochnorm.models",
    "compare": "stochnorm.sweep",
    "diagnose": "stochnorm.doctor",
    "finetune": "stochnorm.job",
    "load_classifier": "stochnorm.models",
    "predict": "stochnorm.prediction",
    "read_records": "stochnorm.records",
    "tune": "stochnorm.tuning",
    "write_report": "stochnorm.report",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'stochnorm' has no attribute {name!r}")
