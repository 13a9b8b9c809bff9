"""StochNorm1d, StochNorm2d, StochNorm3d: the state around :func:`stoch_norm`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.functional import check_values_per_channel, stoch_norm_

__all__ = ["StochNorm1d", "StochNorm2d", "StochNorm3d"]


def check_p(p: float) -> float:
    """Returns p as a float, or raises ValueError unless it is a probability."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(
            f"p must be in [0, 1], got {p!r}: it is the probability that a channel is normalized by batch "
            "statistics (1 is BatchNorm, the paper uses 0.5)"
        )
    return float(p)


def inside_backward() -> bool:
    """Whether autograd is running: a forward pass there is activation checkpointing's second one."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class _StochNorm(_BatchNorm):
    """What the three layers share. In eval mode, and at p = 1, the parent class's forward runs untouched."""

    # Of the last training step: the mask, and mean, variance and batch mean as stoch_norm_ returns them.
    _last_step: tuple[Tensor, Iterable[Tensor]] | None = None
    _held = False  # see stochnorm.nn.hold_statistics

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        p: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not track_running_stats and p != 1.0:
            raise ValueError(
                f"StochNorm with p={p} normalizes by moving statistics, which track_running_stats=False does not "
                "keep: set track_running_stats=True, or p=1"
            )
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.p = p

    @property
    def p(self) -> float:
        """The probability that a channel is normalized by batch statistics."""
        return self._p

    @p.setter
    def p(self, p: float) -> None:
        self._p = check_p(p)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        if self._p == 1.0:
            if self._last_step is not None:
                self._last_step = None  # of a pass before this one
            return super().forward(input)
        return self._stochastic_forward(input)

    def _stochastic_forward(self, input: Tensor) -> Tensor:
        """Algorithm 1, training: draw, normalize, update the moving statistics."""
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        check_values_per_channel(input)
        if input.size(1) != self.num_features:
            raise RuntimeError(f"expected an input of {self.num_features} channels, got input size {input.size()}")
        if self._held:
            return self._repeat(input, expect_same=False)
        use_batch = torch.rand(self.num_features, device=input.device) < self._p
        if inside_backward():
            return self._repeat(input, expect_same=True)
        output, statistics = stoch_norm_(
            input,
            cast(Tensor, self.running_mean),
            cast(Tensor, self.running_var),
            self.weight,
            self.bias,
            use_batch=use_batch,
            momentum=self._count_batch(),
            eps=self.eps,
            activation=self._activation(),
        )
        if torch.compiler.is_compiling():
            self._last_step = None  # nothing is kept, so that nothing older is repeated
        else:  # past nn.Module's own __setattr__, which is slow
            object.__setattr__(self, "_last_step", (use_batch, statistics))
        return output

    def _repeat(self, input: Tensor, *, expect_same: bool) -> Tensor:
        """The last step over again: same mask, the moving statistics from before it, no update."""
        if self._last_step is None:
            raise RuntimeError(
                "a StochNorm layer was to repeat its last training step (for activation checkpointing, or within "
                "hold_statistics), but there was none: run a forward pass in training mode first, with p below 1 and "
                "not under torch.compile, which keeps none"
            )
        use_batch, (mean, var, expected) = self._last_step
        output, (_, _, batch_mean) = stoch_norm_(
            input,
            mean.clone(),
            var.clone(),
            self.weight,
            self.bias,
            use_batch=use_batch,
            momentum=0.0,
            eps=self.eps,
            activation=self._activation(),
        )
        if expect_same and ((batch_mean - expected).abs() > 1e-3 * (var + self.eps).sqrt()).any():
            raise RuntimeError(
                "activation checkpointing recomputed a StochNorm layer on other inputs than its last forward pass: "
                "the moving statistics that pass used are gone, so the gradient would be wrong. Run backward after "
                "each forward pass, or leave this layer out of the checkpointed part"
            )
        return output

    def _activation(self) -> nn.Module | None:
        """What the layer applies to its output in training."""
        return None

    def _count_batch(self) -> float:
        """Counts this step's batch and returns its weight in the moving statistics."""
        count = self.num_batches_tracked
        if count is not None:
            count.add_(1)
        if self.momentum is None:  # cumulative moving average
            return 1.0 / float(cast(Tensor, count))
        return self.momentum

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}"  # type: ignore[no-untyped-call]


_DOCSTRING = """p is the probability that a channel is normalized by **batch** statistics; p = 1 is BatchNorm.

A drop-in replacement for :class:`torch.nn.BatchNorm{n}d` that regularizes fine-tuning on little data. In training,
each channel at each step is normalized by the statistics of the mini-batch (probability p) or by the moving
statistics inherited from pre-training (probability 1 - p). In eval mode it *is* BatchNorm, and its state dict has
BatchNorm's keys. *Stochastic Normalization*, Kou et al., NeurIPS 2020, Algorithm 1.

The mask is drawn anew each training step from torch's default generator on the input's device, so
``torch.manual_seed`` makes it reproducible. The gradient uses the moving statistics from before the step's update.
Under activation checkpointing the recomputation reuses the step's mask and statistics and updates nothing. Under
DistributedDataParallel every process draws its own mask and uses its own batch's statistics, as BatchNorm does.

Args:
    num_features: Number of channels c.
    eps: Added to the variances.
    momentum: Weight of the batch statistics in the moving ones (the paper's alpha; it uses 0.1). None keeps their
        cumulative average.
    affine: Learn a scale and a shift per channel.
    track_running_stats: Must be True unless p = 1.
    p: In [0, 1]; the paper uses 0.5. May be set at any time.
    device: Of the parameters and buffers.
    dtype: Of the parameters and buffers.

Shape:
    - Input: {shape}; at least 2 values per channel in training.
    - Output: the input's shape, dtype and memory format.

Raises:
    ValueError: p outside [0, 1]; p < 1 without tracked statistics; one value per channel in training.
    RuntimeError: Checkpointing recomputes an earlier pass than the last one.

Example:
    >>> layer = StochNorm{n}d(3, p=0.5)
    >>> _ = layer.load_state_dict(torch.nn.BatchNorm{n}d(3).state_dict())
    >>> layer(torch.randn({example})).shape
    torch.Size([{example}])
"""


class StochNorm1d(_StochNorm, nn.BatchNorm1d):
    __doc__ = _DOCSTRING.format(n=1, shape="(b, c) or (b, c, l)", example="8, 3")


class StochNorm2d(_StochNorm, nn.BatchNorm2d):
    __doc__ = _DOCSTRING.format(n=2, shape="(b, c, h, w)", example="8, 3, 4, 4")


class StochNorm3d(_StochNorm, nn.BatchNorm3d):
    __doc__ = _DOCSTRING.format(n=3, shape="(b, c, d, h, w)", example="8, 3, 2, 4, 4")
