"""StochNorm1d, StochNorm2d, StochNorm3d: the layers around [stochnorm.nn.stoch_norm][]."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn import synchronized
from stochnorm.nn.functional import check_values_per_channel, stoch_norm_
from stochnorm.nn.probability import check_p, draw_mask, is_captured
from stochnorm.nn.refusal import RefusesSyncBatchNorm

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from typing_extensions import Self

__all__ = ["StochNorm1d", "StochNorm2d", "StochNorm3d"]


def inside_backward() -> bool:
    """Return whether autograd is running; a forward pass inside it is the recomputation of activation checkpointing."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class _StochNorm(_BatchNorm):
    """Shared code of the three layers. In eval mode, and at p = 1, the parent class's forward runs unchanged."""

    qconfig = RefusesSyncBatchNorm(
        "StochNorm", "use stochnorm.convert(model, sync=True) for synchronized StochNorm, and no sync_batchnorm"
    )
    # The last training step: the mask, and mean, variance and batch mean as stoch_norm_ returns them.
    _last_step: tuple[Tensor, Iterable[Tensor]] | None = None
    _drew = True  # the last training step drew its mask by itself
    _held = False  # see stochnorm.nn.hold_statistics
    _given: Tensor | None = None  # the mask of the next training step, see stochnorm.nn.masks
    _sync: synchronized.Synchronization | None = None  # see stochnorm.nn.synchronized
    # p on the layer's device, float32, for compiled code and CUDA graphs, which would keep the value of a number. It is
    # no buffer: its dtype does not follow the layer's, it is not in the state dict, and DDP does not send it.
    _p_tensor: Tensor

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
        if "_p_tensor" in self.__dict__:
            self._p_tensor.fill_(self._p)
        else:
            self._place_p()

    def _place_p(self) -> None:
        """Make the tensor of p on the device of the statistics, so that it can be changed in place at any time."""
        like = self.weight if self.running_mean is None else self.running_mean
        with torch.inference_mode(False):
            self._p_tensor = torch.full((), self._p, dtype=torch.float32, device=None if like is None else like.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._follow()
        return self

    def _follow(self) -> None:
        """Make the tensor of p again if the statistics are on another device."""
        if self.running_mean is not None and self.running_mean.device != self._p_tensor.device:
            self._place_p()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._place_p()  # not that of the layer that was copied; earlier versions have none

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        if self._is_batch_norm(input):
            if self._last_step is not None:
                self._last_step = None  # it belongs to an earlier pass
            return super().forward(input)
        return self._stochastic_forward(input)

    def _is_batch_norm(self, input: Tensor) -> bool:
        """Return whether a step is one of BatchNorm; never in compiled code and CUDA graphs, as p may change later."""
        if torch.compiler.is_compiling() or self._given is not None or is_captured(input):
            return self.running_mean is None  # so that p is 1
        return self._p == 1.0 and self._group() is None

    def _draw(self, input: Tensor) -> Tensor:
        """Return a mask, drawn from torch's generator on the input's device."""
        if not (input.is_cuda or torch.compiler.is_compiling()):
            return torch.rand(self.num_features, device=input.device) < self._p
        p = self._p_tensor
        if p.device != input.device:  # the layer was moved without Module.to, as by FSDP or load_state_dict
            p = torch.full((), self._p, device=input.device) if p.is_meta else p.to(input.device)
            if not torch.compiler.is_compiling():
                self._p_tensor = p
        return draw_mask(self.num_features, p)

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
        if self._held:
            return self._repeat(input, residual, activation)[0]
        if inside_backward():
            if self._drew:  # so that dropout behind the layer takes the same numbers as in the pass
                self._draw(input)
            return self._recompute(input, residual, activation)
        use_batch = self._draw(input) if self._given is None else self._given
        if use_batch.device != input.device:
            raise RuntimeError(
                f"the given mask is on {use_batch.device}, the input on {input.device}: make JointMasks again"
            )
        output, statistics, use_batch = self._run(
            input,
            cast(Tensor, self.running_mean),
            cast(Tensor, self.running_var),
            residual,
            activation,
            use_batch=use_batch,
            momentum=self.momentum,
            batches=self.num_batches_tracked,
        )
        if torch.compiler.is_compiling():
            self._last_step = None  # keep nothing, so that no older step is repeated
        else:  # nn.Module.__setattr__ is slow
            object.__setattr__(self, "_last_step", (use_batch, statistics))
            object.__setattr__(self, "_drew", self._given is None)
        if self._given is not None:
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

    def _group(self) -> ProcessGroup | None:
        """Return the processes to synchronize with, if any."""
        return None if self._sync is None else self._sync.active()

    def _repeat(self, input: Tensor, residual: Tensor | None, activation: nn.Module | None) -> tuple[Tensor, Tensor]:
        """Repeat the last step: same mask, the moving statistics from before it, no update.

        Returns:
            The output, and the batch mean.
        """
        if self._last_step is None:
            raise RuntimeError(
                "a StochNorm layer must repeat its last training step (for activation checkpointing or inside "
                "hold_statistics), but it has none: run a forward pass in training mode first, with p below 1 and "
                "without torch.compile, which keeps no steps"
            )
        use_batch, (mean, var, _) = self._last_step
        output, (_, _, batch_mean), _ = self._run(
            input, mean.clone(), var.clone(), residual, activation, use_batch=use_batch, momentum=0.0, batches=None
        )
        return output, batch_mean

    def _recompute(self, input: Tensor, residual: Tensor | None, activation: nn.Module | None) -> Tensor:
        """Repeat the last step for activation checkpointing; raise RuntimeError if the input is another one."""
        output, batch_mean = self._repeat(input, residual, activation)
        if is_captured(input):
            return output  # a CUDA graph cannot ask the GPU for the result of a comparison
        _, (_, var, expected) = cast("tuple[Tensor, Iterable[Tensor]]", self._last_step)
        if ((batch_mean - expected).abs() > 1e-3 * (var + self.eps).sqrt()).any():
            raise RuntimeError(
                "activation checkpointing recomputed a StochNorm layer on other inputs than its last forward pass; the "
                "moving statistics of the earlier pass are lost, so the gradient would be wrong. Run backward after "
                "each forward pass, or exclude this layer from checkpointing"
            )
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
gradient uses the moving statistics from before the step's update. Under activation checkpointing the recomputation
reuses the step's mask and statistics and updates nothing. Under DistributedDataParallel every process draws its own
mask and uses its own batch, as BatchNorm does, unless `stochnorm.convert(model, sync=True)` synchronized the layer.

Args:
    num_features: Number of channels c.
    eps: Constant added to the variances.
    momentum: Weight of the batch statistics in the moving ones (the paper's alpha, 0.1 there). None keeps their
        cumulative average.
    affine: Learn a scale and a shift per channel.
    track_running_stats: Must be True unless p = 1.
    p: Probability in [0, 1], 0.5 in the paper. It can be set at any time.
    device: Device of the parameters and buffers.
    dtype: Dtype of the parameters and buffers.

Shape:
    - Input: {shape}; at least 2 values per channel in training.
    - Output: the input's shape, dtype and memory format.

Raises:
    ValueError: p outside [0, 1], p < 1 without tracked statistics, or one value per channel in training.
    RuntimeError: Checkpointing recomputes an earlier pass than the last one. (While a CUDA graph is captured, this is
        not checked.)

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
