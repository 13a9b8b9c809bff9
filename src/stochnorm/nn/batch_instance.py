"""Batch-Instance Normalization (Nam & Kim, NeurIPS 2018): function and layers."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.composed import is_transformed
from stochnorm.nn.cuda import batch_instance as kernels
from stochnorm.nn.cuda.activations import code_of
from stochnorm.nn.refusal import Converted, RefusesSyncBatchNorm, recorded

__all__ = [
    "BatchInstanceNorm1d",
    "BatchInstanceNorm2d",
    "BatchInstanceNorm3d",
    "batch_instance_norm",
    "clip_after_steps",
]


def batch_instance_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    rho: Tensor,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""Mix batch and instance normalization, with a learned proportion for each channel (equations 1 to 4).

    $$ y = \gamma \left( \rho \, \hat x^{(B)} + (1 - \rho) \, \hat x^{(I)} \right) + \beta $$

    The first term is batch normalization: batch statistics in training, moving statistics otherwise. The second term
    normalizes each channel of each image by its own mean and variance, in training and inference. If an image has one
    value per channel (a 1x1 map, or an input without spatial axes), the second term is 0.

    Args:
        input: The feature map x.
        running_mean: Moving mean; updated in place in training, as by `torch.nn.functional.batch_norm`.
        running_var: Moving variance, likewise. Both may be None in training.
        weight: Scale gamma; None is 1.
        bias: Shift beta; None is 0.
        rho: Proportion of batch normalization, in [0, 1] (not checked); 1 is batch normalization bit for bit.
        training: Normalize the first term by batch statistics.
        momentum: Weight of the batch statistics in the updated moving statistics.
        eps: Constant added to all variances.

    Shape:
        - input: (b, c), (b, c, l), (b, c, h, w) or (b, c, d, h, w), floating.
        - running_mean, running_var, weight, bias, rho: (c,).

    Returns:
        The output, in the input's shape and dtype. Gradients flow to `input`, `weight`, `bias` and `rho`.

    Raises:
        ValueError: The input has one value per channel in training, or `rho` is not of shape (c,).

    Example:
        >>> x = torch.randn(8, 3, 4, 4)
        >>> y = batch_instance_norm(x, None, None, rho=torch.zeros(3), training=True)
        >>> torch.allclose(y, F.instance_norm(x))
        True
    """
    if rho.shape != (input.size(1),):
        raise ValueError(f"rho must be of shape ({input.size(1)},), a value per channel, got {tuple(rho.shape)}")
    return _mix(
        input,
        running_mean,
        running_var,
        weight,
        bias,
        rho=rho,
        training=training,
        momentum=momentum,
        eps=eps,
    )


def _mix(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    rho: Tensor,
    training: bool,
    momentum: float | None,
    eps: float,
    batches: Tensor | None = None,
    residual: Tensor | None = None,
    activation: nn.Module | None = None,
) -> Tensor:
    """Compute `activation(batch_instance_norm(input) + residual)`, on GPUs in the passes of batch normalization.

    Args:
        momentum: Weight of the batch statistics in the moving ones; None for the cumulative average of `batches`.
        batches: Number of batches that the moving statistics have seen, int64 (); counted up here.
    """
    vectors = (running_mean, running_var, weight, bias, rho)
    if kernels.fits(input, residual, *vectors):
        code = code_of(activation)
        settings = (weight is not None, bias is not None, residual is not None, code or 0, _formula)
        if kernels.passes(input, *settings, training=training):
            output = kernels.mix(
                input,
                *vectors[:4],
                rho=rho,
                training=training,
                momentum=momentum,
                eps=eps,
                batches=batches,
                residual=residual,
                activation=code or 0,
                formula=_formula,
            )
            return output if code is not None else cast(nn.Module, activation)(output)
    if batches is not None:
        batches.add_(1)
    if momentum is None:
        momentum = 0.0 if batches is None else 1.0 / float(batches)
    output = _formula(
        input, running_mean, running_var, weight, bias, rho=rho, training=training, momentum=momentum, eps=eps
    )
    output = output if residual is None else output + residual
    return output if activation is None else cast(Tensor, activation(output))


def _formula(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    rho: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Compute `batch_instance_norm` by PyTorch's kernels for the two terms.

    rho is inside gamma; at rho = 1 the second term is exactly 0.
    """
    batch_scale = rho if weight is None else rho * weight
    output = F.batch_norm(input, running_mean, running_var, batch_scale, bias, training, momentum, eps)
    if input.shape[2:].numel() == 1:
        return output
    instance_scale = 1 - rho if weight is None else (1 - rho) * weight
    if input.size(0) == 1 and torch.is_grad_enabled():
        # The same, but F.instance_norm's gradient is wrong for one image if its output's gradient is channels_last.
        instance = F.batch_norm(input, None, None, instance_scale, None, True, 0.0, eps)
    else:
        instance = F.instance_norm(input, weight=instance_scale, eps=eps)
    return output + instance.to(output.dtype)  # autocast computes some kernels in float32


class _BatchInstanceNorm(Converted, _BatchNorm):
    """Shared code of the three layers."""

    rho: nn.Parameter
    qconfig = RefusesSyncBatchNorm("Batch-Instance Normalization", "it has no synchronized form; leave it as it is")

    def __init__(self, num_features: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(num_features, *args, **kwargs)
        self._add_rho()

    def _add_rho(self) -> None:
        """Add the mixing parameter, all 1, with the device and dtype of the layer."""
        like = next((t for t in (self.weight, self.running_mean) if t is not None), torch.empty(0))
        self.rho = nn.Parameter(torch.ones(self.num_features, dtype=like.dtype, device=like.device))

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.rho.data.clamp_(0, 1)  # the next forward pass in training would do it; other readers do not
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def forward(self, input: Tensor) -> Tensor:
        if not isinstance(input, Tensor) and (call := recorded(self, input)) is not None:
            return cast(Tensor, call)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        return self._mixed_forward(input)

    def _mixed_forward(
        self, input: Tensor, residual: Tensor | None = None, activation: nn.Module | None = None
    ) -> Tensor:
        """Mix the two normalizations, add the residual, and activate; None is the layer's own activation, if any."""
        tracks = self.training and self.track_running_stats
        if self.training and not is_transformed():
            # The paper clips rho after each update; clipping it before its next use works with every optimizer.
            # With .data, because autograd would see the clipping as a change of a tensor that an earlier pass saved.
            self.rho.data.clamp_(0, 1)
        constant = self.rho.detach()
        clipped = constant.clamp(0, 1) + (self.rho - constant)  # clamp's own gradient is 0 at the bounds
        return _mix(
            input,
            self.running_mean if tracks or not self.training else None,
            self.running_var if tracks or not self.training else None,
            self.weight,
            self.bias,
            rho=clipped,
            training=self.training or self.running_mean is None,
            momentum=self.momentum if tracks else 0.0,
            eps=self.eps,
            batches=self.num_batches_tracked if tracks else None,
            residual=residual,
            activation=self._activation() if activation is None else activation,
        )

    def _activation(self) -> nn.Module | None:
        """Return the activation that the layer applies."""
        return None


def clip_after_steps(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Clip rho to [0, 1] after each step of an optimizer, as in the paper, so that averages of weights have valid ones.

    The layers clip it themselves before its next use, so training does not change.

    Example:
        >>> layer = BatchInstanceNorm2d(3)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=9.0)
        >>> clip_after_steps(optimizer, layer)
        >>> layer(torch.randn(8, 3, 4, 4)).square().sum().backward()
        >>> optimizer.step()
        >>> bool((layer.rho >= 0).all() and (layer.rho <= 1).all())
        True
    """
    rhos = [module.rho for module in model.modules() if isinstance(module, _BatchInstanceNorm)]

    def clip(*_: object) -> None:
        values = [rho.data for rho in rhos]
        torch._foreach_clamp_min_(values, 0.0)
        torch._foreach_clamp_max_(values, 1.0)

    if rhos:
        optimizer.register_step_post_hook(clip)


_DOCSTRING = r"""A mixture of batch and instance normalization, learned per channel; it starts as BatchNorm.

$$ y = \gamma \left( \rho \, \hat x^{{(B)}} + (1 - \rho) \, \hat x^{{(I)}} \right) + \beta $$

If the style of an image (its own mean and contrast in a channel) does not matter for the task, training moves rho below
1, which removes the style. *Batch-Instance Normalization for Adaptively Style-Invariant Neural Networks*, Nam and Kim,
NeurIPS 2018.

The layer has one parameter more than `torch.nn.BatchNorm{n}d`: `rho`, initialized with ones. As in the paper, rho stays
in [0, 1]: each forward pass clips it, so the layer always normalizes with a valid value, and so does `state_dict`, for
readers that do not clip. Its gradient is that of the
formula, also at 0 and 1. Put rho into its own parameter group without weight decay, which would pull it towards
instance normalization; in the authors' code its learning rate is ten times higher.

At inference (eval mode) the batch term uses the moving statistics; the instance term always uses the image's own
statistics, so the layer cannot be folded into a convolution. If an image has one value per channel, the instance term
is 0.

Args:
    num_features: Number of channels c.
    *args: As for `torch.nn.BatchNorm{n}d`, like the keyword arguments.

Shape:
    - Input: {shape}; at least 2 values per channel in training.
    - Output: the input's shape and dtype.

Example:
    >>> layer = BatchInstanceNorm{n}d(3)
    >>> x = torch.randn({example})
    >>> torch.equal(layer(x), nn.BatchNorm{n}d(3)(x))
    True
"""


class BatchInstanceNorm1d(_BatchInstanceNorm, nn.BatchNorm1d):
    __doc__ = _DOCSTRING.format(n=1, shape="(b, c) or (b, c, l)", example="8, 3, 5")


class BatchInstanceNorm2d(_BatchInstanceNorm, nn.BatchNorm2d):
    __doc__ = _DOCSTRING.format(n=2, shape="(b, c, h, w)", example="8, 3, 4, 4")


class BatchInstanceNorm3d(_BatchInstanceNorm, nn.BatchNorm3d):
    __doc__ = _DOCSTRING.format(n=3, shape="(b, c, d, h, w)", example="8, 3, 2, 4, 4")
