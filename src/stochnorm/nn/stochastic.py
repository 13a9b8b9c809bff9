"""StochNorm1d, StochNorm2d, StochNorm3d: the layers around [stochnorm.nn.stoch_norm][]."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn import recomputation, synchronized
from stochnorm.nn.composed import is_transformed
from stochnorm.nn.functional import check_values_per_channel, stoch_norm_
from stochnorm.nn.probability import HasProbability, is_captured
from stochnorm.nn.recomputation import Plain, Step
from stochnorm.nn.refusal import Converted, RefusesSyncBatchNorm, called_by, recorded

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from typing_extensions import Self

__all__ = ["StochNorm1d", "StochNorm2d", "StochNorm3d"]


class _StochNorm(HasProbability, Converted, _BatchNorm):
    """Shared code of the three layers. In eval mode, and at p = 1, the parent class's forward runs unchanged."""

    qconfig = RefusesSyncBatchNorm(
        "StochNorm", "use stochnorm.convert(model, sync=True) for synchronized StochNorm, and no sync_batchnorm"
    )
    # The last training step: the mask; mean, variance and batch mean as stoch_norm_ returns them; and the rest of Step.
    _last_step: tuple[Tensor, Iterable[Tensor], bool, int | None] | None = None
    _held = False  # see stochnorm.nn.hold_statistics
    _given: Tensor | None = None  # the mask of the next training step, see stochnorm.nn.masks
    _sync: synchronized.Synchronization | None = None  # see stochnorm.nn.synchronized

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
        **options: Any,
    ) -> None:
        if not track_running_stats and p != 1.0:
            raise ValueError(
                f"StochNorm with p={p} normalizes by moving statistics, which track_running_stats=False does not "
                "keep: set track_running_stats=True, or p=1"
            )
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype, **options
        )
        self.p = p

    def reset_running_stats(self) -> None:
        if called_by("update_bn") and self._p != 1.0:
            raise TypeError(
                "update_bn would normalize by the moving statistics that it has just reset: call "
                "stochnorm.update_statistics(model, loader) instead"
            )
        super().reset_running_stats()

    def forward(self, input: Tensor) -> Tensor:
        if not isinstance(input, Tensor) and (call := recorded(self, input)) is not None:
            return cast(Tensor, call)
        if not self.training:
            return super().forward(input)
        if self._is_batch_norm(input):
            self._pass_as_batch_norm()
            return super().forward(input)
        return self._stochastic_forward(input)

    def _is_batch_norm(self, input: Tensor) -> bool:
        """Return whether a step is one of BatchNorm; never in compiled code and CUDA graphs, as p may change later."""
        if self.running_mean is None:
            if self._p == 1.0:
                return True
            raise ValueError(
                f"StochNorm with p={self._p:g} normalizes by moving statistics, and this layer has none any more (as "
                "after torch.func.replace_all_batch_norm_modules_): keep them and give torch.func.functional_call "
                "clones of the buffers, or call stochnorm.nn.set_p(model, 1.0)"
            )
        if input.numel() == 0 and self._group() is None:
            return True  # it has no statistics, and nothing to normalize
        repeated = recomputation.step_to_repeat(self)
        if repeated is not None:  # whatever p is now
            return repeated is Plain.BATCH_NORM
        if torch.compiler.is_compiling() or self._p != 1.0 or self._given is not None or is_captured(input):
            return False
        return self._group() is None

    def _pass_as_batch_norm(self) -> None:
        """Note a pass of BatchNorm: drop the last step, which belongs to an earlier pass, and a mask that is unused."""
        recomputation.step_to_repeat(self, take=True)
        if not torch.compiler.is_compiling() and recomputation.may_recompute():
            recomputation.keep(self, Plain.BATCH_NORM)
        if self._last_step is not None and not self._held:
            self._last_step = None
        if self._given is not None:
            self._given = None

    def _stochastic_forward(
        self, input: Tensor, residual: Tensor | None = None, activation: nn.Module | None = None
    ) -> Tensor:
        """Algorithm 1, training: draw, normalize, update the moving statistics; add the residual, activate.

        Args:
            residual: Added to the normalized input, of its shape.
            activation: Module applied last; None for the layer's own.
        """
        if activation is None:
            activation = self._activation()
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        if self._group() is None:
            check_values_per_channel(input)
        if input.size(1) != self.num_features:
            raise RuntimeError(f"expected an input of {self.num_features} channels, got input size {input.size()}")
        recomputed = recomputation.step_to_repeat(self, take=True)
        if isinstance(recomputed, Step):
            return self._recompute(recomputed, input, residual, activation)
        if self._held:
            step = self._last()
            output, statistics = self._repeat(step, input, residual, activation)
            if not torch.compiler.is_compiling():
                recomputation.keep(self, Step.of(step.mask, statistics, False, step.version))
            return output
        given = self._given
        use_batch = self._draw(input) if given is None else given
        if use_batch.device != input.device:
            raise RuntimeError(
                f"the given mask is on {use_batch.device}, the input on {input.device}: make JointMasks again"
            )
        mean, var = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        momentum, batches = self.momentum, self.num_batches_tracked
        if not self.track_running_stats:  # switched off afterwards, to hold the statistics
            mean, var, momentum, batches = mean.clone(), var.clone(), 0.0, None
        output, statistics, use_batch = self._run(
            input, mean, var, residual, activation, use_batch=use_batch, momentum=momentum, batches=batches
        )
        if torch.compiler.is_compiling() or is_transformed():
            if self._last_step is not None:  # keep nothing, so that no older step is repeated
                self._last_step = None
        else:  # nn.Module.__setattr__ is slow
            last = (use_batch, statistics, given is None, None if given is None else given._version)
            object.__setattr__(self, "_last_step", last)
            if recomputation.may_recompute():
                recomputation.keep(self, self._last())
        if given is not None:
            self._given = None
        return output

    def _run(
        self,
        input: Tensor,
        mean: Tensor,
        var: Tensor,
        residual: Tensor | None,
        activation: nn.Module | None,
        *,
        use_batch: Tensor,
        momentum: float | None,
        batches: Tensor | None,
    ) -> tuple[Tensor, Iterable[Tensor], Tensor]:
        """Run the algorithm on moving statistics; return output, statistics, and the mask that was used."""
        arguments: dict[str, Any] = {
            "use_batch": use_batch,
            "momentum": momentum,
            "eps": self.eps,
            "batches": batches,
            "residual": residual,
            "activation": activation,
        }
        group = self._group()
        if group is not None and self._sync is not None:
            together = self._sync.stoch_norm_(input, mean, var, self.weight, self.bias, **arguments, group=group)
            return cast("tuple[Tensor, Iterable[Tensor], Tensor]", together)
        return *stoch_norm_(input, mean, var, self.weight, self.bias, **arguments), use_batch

    def _replicate_for_data_parallel(self) -> Self:
        replica: Self = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica._last_step = None  # not one of another batch; that of the replica is lost with it
        return replica

    def _group(self) -> ProcessGroup | None:
        """Return the processes to synchronize with, if any."""
        return None if self._sync is None else self._sync.active()

    def _last(self) -> Step:
        """Return the last training step."""
        if self._last_step is None:
            raise RuntimeError(recomputation.NOTHING)
        return Step.of(*self._last_step)

    def _repeat(
        self, step: Step, input: Tensor, residual: Tensor | None, activation: nn.Module | None
    ) -> tuple[Tensor, Iterable[Tensor]]:
        """Repeat a step: same mask, the moving statistics from before it, no update; return output and statistics."""
        step.check_mask()
        mean, var = step.moving()
        return self._run(input, mean, var, residual, activation, use_batch=step.mask, momentum=0.0, batches=None)[:2]

    def _recompute(self, step: Step, input: Tensor, residual: Tensor | None, activation: nn.Module | None) -> Tensor:
        """Repeat a step that the pass is the recomputation of; draw if it drew, for the layers behind this one."""
        if step.drew:
            self._draw(input)
        output, (_, _, batch_mean) = self._repeat(step, input, residual, activation)
        if not is_captured(input):  # a graph cannot ask the GPU for the result of a comparison
            step.check_mean(batch_mean, self.eps)
        recomputation.keep(self, step)  # a checkpoint within the recomputed one repeats it once more
        return output

    def _activation(self) -> nn.Module | None:
        """Return the activation that the layer applies in training."""
        return None

    def extra_repr(self) -> str:
        sync = "" if self._sync is None else ", sync=True"
        return f"{super().extra_repr()}, p={self.p}{sync}"  # type: ignore[no-untyped-call]


_DOCSTRING = r"""p is the probability that a channel is normalized by **batch** statistics; p = 1 is BatchNorm.

A drop-in replacement for `torch.nn.BatchNorm{n}d` that regularizes fine-tuning on small data sets. At each training
step, each channel is normalized by the statistics of the mini-batch with probability p, and otherwise by the moving
statistics inherited from pre-training. With the mask $s \in \{{0, 1\}}$, drawn for each channel and step:

$$
y = \gamma \left( s \frac{{x - \mu}}{{\sqrt{{\sigma^2 + \epsilon}}}}
  + (1 - s) \frac{{x - \tilde\mu}}{{\sqrt{{\tilde\sigma^2 + \epsilon}}}} \right) + \beta, \qquad P(s = 1) = p
$$

At inference (eval mode) the layer *is* BatchNorm: every channel uses the moving statistics. Its state dict has
BatchNorm's keys. *Stochastic Normalization*, Kou et al., NeurIPS 2020, Algorithm 1.

Each training step draws the mask from torch's default generator on the input's device, so `torch.manual_seed` makes it
reproducible. Under `torch.compile` the mask has the same law, but other bits, and a new p compiles nothing again. The
gradient uses the moving statistics from before the step's update. Under activation checkpointing a recomputation
reuses the mask and statistics of its own pass, however many passes were made, and updates nothing. (At p = 1 the layer
is BatchNorm, which updates its moving statistics there once more.) Under DistributedDataParallel every process draws
its own mask and uses its own batch, as BatchNorm does, unless `stochnorm.convert(model, sync=True)` synchronized the
layer.

Args:
    num_features: Number of channels c.
    eps: Constant added to the variances.
    momentum: Weight of the batch statistics in the moving ones (the paper's alpha, 0.1 there). None keeps their
        cumulative average.
    affine: Learn a scale and a shift per channel.
    track_running_stats: Must be True unless p = 1. If the attribute is set to False later, the moving statistics are
        used as before, but no longer updated.
    p: Probability in [0, 1], 0.5 in the paper. It can be set at any time.
    device: Device of the parameters and buffers.
    dtype: Dtype of the parameters and buffers.
    **options: What else `torch.nn.BatchNorm{n}d` takes, such as `bias=False` in later versions of PyTorch.

Shape:
    - Input: {shape}; in training not 1 value per channel; an empty batch counts as a step and changes no statistics.
    - Output: the input's shape, dtype and memory format.

Raises:
    ValueError: p outside [0, 1], p < 1 without tracked statistics, or one value per channel in training.
    RuntimeError: Checkpointing recomputes the layer on another input than in the pass.

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
