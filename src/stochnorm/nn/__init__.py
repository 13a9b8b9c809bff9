"""The layer, and what turns a model's BatchNorm into it; needs torch alone."""

from stochnorm.nn.convert import convert, restore
from stochnorm.nn.functional import stoch_norm
from stochnorm.nn.layer import StochNorm1d, StochNorm2d, StochNorm3d
from stochnorm.nn.statistics import update_statistics

__all__ = ["StochNorm1d", "StochNorm2d", "StochNorm3d", "convert", "restore", "stoch_norm", "update_statistics"]
