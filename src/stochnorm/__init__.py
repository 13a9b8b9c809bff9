"""Fine-tune pre-trained ConvNets on small image data sets: Stochastic Normalization (NeurIPS 2020) for PyTorch.

Importing the package imports nothing else: each public name is imported at its first use. The layers, the conversions
and :mod:`stochnorm.regularizers` need torch alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stochnorm.comparison.compare import Comparison, compare
    from stochnorm.comparison.grid import Grid, Variant
    from stochnorm.data.inspection.inspect import Inspection, inspect_data
    from stochnorm.doctor.diagnose import diagnose
    from stochnorm.doctor.diagnosis import Diagnosis
    from stochnorm.evaluation.evaluate import evaluate
    from stochnorm.evaluation.predict import Prediction, predict
    from stochnorm.evaluation.result import Evaluation
    from stochnorm.exporting.export import Export, Exported, export
    from stochnorm.methods.bituning import BiTuningConfig
    from stochnorm.methods.bss import BSSConfig
    from stochnorm.methods.cotuning import CoTuningConfig
    from stochnorm.methods.delta import DELTAConfig
    from stochnorm.methods.l2sp import L2SPConfig
    from stochnorm.methods.lwf import LwFConfig
    from stochnorm.methods.sam import SAMConfig
    from stochnorm.methods.soup import SoupConfig
    from stochnorm.methods.wise import WiSEConfig
    from stochnorm.models import build_classifier, load_classifier
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
    from stochnorm.report import write_report
    from stochnorm.runs.config import FinetuneConfig
    from stochnorm.runs.records import Record, read_records
    from stochnorm.training.find_lr import find_lr
    from stochnorm.training.finetune import Result, finetune
    from stochnorm.tuning.tune import Tuned, tune

__version__ = "0.1.0"

__all__ = [
    "BSSConfig",
    "BiTuningConfig",
    "CoTuningConfig",
    "Comparison",
    "DELTAConfig",
    "Diagnosis",
    "Evaluation",
    "Export",
    "Exported",
    "FinetuneConfig",
    "Grid",
    "Inspection",
    "L2SPConfig",
    "LwFConfig",
    "Prediction",
    "Record",
    "Result",
    "SAMConfig",
    "SoupConfig",
    "StochNorm1d",
    "StochNorm2d",
    "StochNorm3d",
    "Tuned",
    "Variant",
    "WiSEConfig",
    "build_classifier",
    "compare",
    "convert",
    "convert_batch_instance",
    "diagnose",
    "evaluate",
    "export",
    "find_lr",
    "finetune",
    "freeze",
    "hold_statistics",
    "initialize_statistics",
    "inspect_data",
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
    "BSSConfig": "stochnorm.methods.bss",
    "BiTuningConfig": "stochnorm.methods.bituning",
    "CoTuningConfig": "stochnorm.methods.cotuning",
    "Comparison": "stochnorm.comparison.compare",
    "DELTAConfig": "stochnorm.methods.delta",
    "Diagnosis": "stochnorm.doctor.diagnosis",
    "Evaluation": "stochnorm.evaluation.result",
    "Export": "stochnorm.exporting.export",
    "Exported": "stochnorm.exporting.export",
    "FinetuneConfig": "stochnorm.runs.config",
    "Grid": "stochnorm.comparison.grid",
    "Inspection": "stochnorm.data.inspection.inspect",
    "L2SPConfig": "stochnorm.methods.l2sp",
    "LwFConfig": "stochnorm.methods.lwf",
    "Prediction": "stochnorm.evaluation.predict",
    "Record": "stochnorm.runs.records",
    "Result": "stochnorm.training.finetune",
    "SAMConfig": "stochnorm.methods.sam",
    "SoupConfig": "stochnorm.methods.soup",
    "StochNorm1d": "stochnorm.nn",
    "StochNorm2d": "stochnorm.nn",
    "StochNorm3d": "stochnorm.nn",
    "Tuned": "stochnorm.tuning.tune",
    "Variant": "stochnorm.comparison.grid",
    "WiSEConfig": "stochnorm.methods.wise",
    "build_classifier": "stochnorm.models",
    "compare": "stochnorm.comparison.compare",
    "convert": "stochnorm.nn",
    "convert_batch_instance": "stochnorm.nn",
    "diagnose": "stochnorm.doctor.diagnose",
    "evaluate": "stochnorm.evaluation.evaluate",
    "export": "stochnorm.exporting.export",
    "find_lr": "stochnorm.training.find_lr",
    "finetune": "stochnorm.training.finetune",
    "freeze": "stochnorm.nn",
    "hold_statistics": "stochnorm.nn",
    "initialize_statistics": "stochnorm.nn",
    "inspect_data": "stochnorm.data.inspection.inspect",
    "load_classifier": "stochnorm.models",
    "predict": "stochnorm.evaluation.predict",
    "read_records": "stochnorm.runs.records",
    "restore": "stochnorm.nn",
    "stoch_norm": "stochnorm.nn",
    "tune": "stochnorm.tuning.tune",
    "unfreeze": "stochnorm.nn",
    "update_statistics": "stochnorm.nn",
    "write_report": "stochnorm.report",
}


def __getattr__(name: str) -> Any:
    if name == "nn":  # for those who import the package alone
        return import_module("stochnorm.nn")
    if name not in _LAZY:
        raise AttributeError(f"module 'stochnorm' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
