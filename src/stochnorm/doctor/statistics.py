"""The statistics of data at normalization layers, compared with the inherited ones."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

__all__ = ["FAR_SCALE", "FAR_SHIFT", "NEAR_SCALE", "NEAR_SHIFT", "LayerStatistics", "NetworkStatistics"]

# Words for distances, set by hand: see docs/doctor.md. Shift in inherited standard deviations, scale in octaves of the
# variance.
NEAR_SHIFT, FAR_SHIFT = 0.25, 1.0
NEAR_SCALE, FAR_SCALE = 0.5, 2.0


@dataclass(frozen=True)
class LayerStatistics:
    """One normalization layer: the statistics of its input, compared with the inherited ones.

    Shifts are in units of the inherited standard deviation, sqrt(running_var + eps). Medians are over the channels that
    are not dead, and nan if all are.
    """

    name: str
    """Name of the layer."""
    channels: int
    """Number of channels."""
    shift: float
    """Median of `|mean of the data - running_mean|`."""
    shift_low: float
    """10th percentile of the shift over channels."""
    shift_high: float
    """90th percentile of the shift over channels."""
    beyond: float
    """Fraction of channels with a shift above 1."""
    scale: float
    """Median of `|log2((variance of the data + eps) / (running_var + eps))|`: 1 is twice or half the variance."""
    noise: float
    """Median standard deviation of the batch means, in standard deviations of the data: how much batch statistics vary
    at this batch size."""
    dead: int
    """Number of channels that did not vary in pre-training (running_var below eps)."""
    awake: int
    """Number of dead channels that the moving branch would give a mean beyond 1 or a standard deviation beyond 2."""

    @property
    def far(self) -> bool:
        """True if the inherited statistics do not fit: a mean differs by 1 sigma, or a variance by a factor of 4."""
        return _far(self)

    @property
    def near(self) -> bool:
        """True if the inherited statistics fit: means within 0.25 sigma and variances within a factor of 1.4."""
        return _near(self)

    @property
    def distance(self) -> float:
        """Shift or scale, whichever is larger, in units of the bound of *far*; -1 if all channels are dead."""
        parts = (self.shift / FAR_SHIFT, self.scale / FAR_SCALE)
        return max((part for part in parts if math.isfinite(part)), default=-1.0)


@dataclass(frozen=True)
class NetworkStatistics:
    """All normalization layers of a network."""

    rows: list[LayerStatistics]
    """The layers, in the order of the forward pass."""
    images: int
    """Number of images."""
    batches: int
    """Number of batches."""
    subject: str = ""
    """Title: backbone, data, pixels."""
    inherited: bool = True
    """True if the network inherited statistics; False for random weights."""
    training: str = ""
    """Command-line arguments of the planned training: DATA and the options that differ from the defaults."""

    @property
    def batch_size(self) -> float:
        """Mean number of images per batch."""
        return self.images / self.batches

    @property
    def shift(self) -> float:
        """Median of the layers' shifts."""
        return _median(row.shift for row in self.rows)

    @property
    def scale(self) -> float:
        """Median of the layers' scales."""
        return _median(row.scale for row in self.rows)

    @property
    def noise(self) -> float:
        """Median of the layers' noise."""
        return _median(row.noise for row in self.rows)

    @property
    def far(self) -> bool:
        """True if the median layer is far, by the rule for a layer."""
        return _far(self)

    @property
    def near(self) -> bool:
        """True if the median layer is near."""
        return _near(self)


def _far(found: LayerStatistics | NetworkStatistics) -> bool:
    return found.shift >= FAR_SHIFT or found.scale >= FAR_SCALE


def _near(found: LayerStatistics | NetworkStatistics) -> bool:
    return found.shift < NEAR_SHIFT and found.scale < NEAR_SCALE


def _median(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return median(finite) if finite else math.nan
