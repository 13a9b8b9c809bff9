"""Normalization layers, and the functions that convert a model's BatchNorm to them; needs only torch."""

from stochnorm.nn.ascend import ascended
from stochnorm.nn.batch_instance import (
    BatchInstanceNorm1d,
    BatchInstanceNorm2d,
    BatchInstanceNorm3d,
    batch_instance_norm,
)
from stochnorm.nn.convert import convert, convert_batch_instance, restore
from stochnorm.nn.freeze import freeze, unfreeze
from stochnorm.nn.frozen import FrozenNorm1d, FrozenNorm2d, FrozenNorm3d
from stochnorm.nn.functional import stoch_norm
from stochnorm.nn.fusion.fuse import fuse, unfuse
from stochnorm.nn.hold import hold_statistics
from stochnorm.nn.schedule import schedule, set_p
from stochnorm.nn.select import name_matches
from stochnorm.nn.statistics import initialize_statistics, update_statistics
from stochnorm.nn.stochastic import StochNorm1d, StochNorm2d, StochNorm3d

__all__ = [
    "BatchInstanceNorm1d",
    "BatchInstanceNorm2d",
    "BatchInstanceNorm3d",
    "FrozenNorm1d",
    "FrozenNorm2d",
    "FrozenNorm3d",
    "StochNorm1d",
    "StochNorm2d",
    "StochNorm3d",
    "ascended",
    "batch_instance_norm",
    "convert",
    "convert_batch_instance",
    "freeze",
    "fuse",
    "hold_statistics",
    "initialize_statistics",
    "name_matches",
    "restore",
    "schedule",
    "set_p",
    "stoch_norm",
    "unfreeze",
    "unfuse",
    "update_statistics",
]
