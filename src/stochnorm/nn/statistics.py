"""Compute the moving statistics of a model from data, or set the ones that fine-tuning starts from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.hooks.modes import evaluating
from stochnorm.nn.select import normalization_layers
from stochnorm.nn.stochastic import _StochNorm

__all__ = ["initialize_statistics", "update_statistics"]

ModelT = TypeVar("ModelT", bound=nn.Module)


@torch.no_grad()
def update_statistics(model: ModelT, loader: Iterable[Any], device: torch.device | str | None = None) -> ModelT:
    r"""Recompute the moving statistics of every BatchNorm and StochNorm layer from all batches, in place.

    Use it after weight averaging in place of `torch.optim.swa_utils.update_bn`, or to adapt the statistics to new data.
    A layer gets the mean and the unbiased variance of all values that it has seen, those between the batches included.
    They are combined from the batches' numbers of values, means and sums of squares in float64 (Chan, Golub, LeVeque
    1983), so batches may have any size. (`update_bn` averages the variances within the batches, which misses what lies
    between them.)

    Meanwhile StochNorm layers normalize every channel by batch statistics (p = 1); with p < 1 they would use the
    statistics that are being recomputed. So the first normalization of a network gets the same statistics in whatever
    order the images come. What the later ones see was normalized by batch: shuffle the images, so that every batch is
    like all of them. All other layers run in eval mode, so the statistics are those of inference (no dropout, no
    stochastic depth). Afterwards p, `momentum` and every module's `training` flag are as before; after an error the
    statistics are, too. Layers that did not run keep theirs; so do those with `track_running_stats=False`, which run in
    eval mode.

    Args:
        model: Any module that takes one batch of inputs.
        loader: Batches: tensors (b, ...), or lists or tuples whose first item is the inputs.
        device: Device to move each batch to; None does not move it.

    Returns:
        The model.

    Raises:
        ValueError: No layer with moving statistics, or no batch.

    Example:
        >>> model = stochnorm.convert(nn.Sequential(nn.BatchNorm1d(2)))
        >>> update_statistics(model, [torch.zeros(2, 2), torch.ones(6, 2)])[0].running_mean
        tensor([0.7500, 0.7500])
    """
    layers = _layers(model)
    settings = [(layer, layer.momentum, getattr(layer, "p", None)) for layer in layers]
    before = {layer: [(b, b.clone()) for b in layer.buffers(recurse=False)] for layer in layers}
    totals = {layer: Total() for layer in layers if layer.track_running_stats}
    hooks = [layer.register_forward_hook(_adding_to(total)) for layer, total in totals.items()]
    batches = 0
    try:
        with evaluating(model), _without_compiler():
            for layer in totals:
                layer.training = True  # not train(), which would switch on the dropout that timm's layers carry
                layer.reset_running_stats()
                layer.momentum = 1.0  # the moving statistics are those of the last batch
                if isinstance(layer, _StochNorm):
                    layer.p, layer._given = 1.0, None
            torch.clear_autocast_cache()
            for batch in loader:
                inputs: Tensor = batch[0] if isinstance(batch, (list, tuple)) else batch
                model(inputs if device is None else inputs.to(device))
                batches += 1
            if batches == 0:
                raise ValueError("no batch to compute the statistics from: the loader is empty")
        for layer, total in totals.items():
            if total.values:
                total.write(layer)
            else:
                _copy(before[layer])
    except BaseException:
        for pairs in before.values():
            _copy(pairs)
        raise
    finally:
        torch.clear_autocast_cache()  # it holds weights without gradient, which a training pass would use
        for hook in hooks:
            hook.remove()
        for layer, momentum, p in settings:
            layer.momentum = momentum
            if isinstance(layer, _StochNorm) and p is not None:
                layer.p = p
    return model


class Total:
    """Mean and sum of squared deviations of all values of each channel, in float64 where the device has it."""

    values = 0
    """Number of values per channel."""
    mean: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, values: int, mean: Tensor, var: Tensor) -> None:
        """Add values with this mean and unbiased variance, (c,)."""
        dtype = torch.float32 if mean.device.type == "mps" else torch.float64
        mean, share = mean.to(dtype), values / (self.values + values)
        delta = mean - self.mean
        self.mean = self.mean + delta * share
        self.squares = self.squares + var.to(dtype) * (values - 1) + delta.square() * (self.values * share)
        self.values += values

    def write(self, layer: _BatchNorm) -> None:
        """Make these the moving statistics of a layer."""
        cast(Tensor, layer.running_mean).copy_(cast(Tensor, self.mean))
        cast(Tensor, layer.running_var).copy_(cast(Tensor, self.squares) / (self.values - 1))


def _adding_to(total: Total) -> Callable[[nn.Module, Any, Tensor], None]:
    """Return a hook that adds the statistics of a layer's batch."""

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.numel():
            total.add(output.numel() // output.size(1), *_batch_statistics(cast(_BatchNorm, layer), inputs))

    return add


def _batch_statistics(layer: _BatchNorm, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased variance of a layer's batch: its moving ones, unless these are of half precision."""
    mean, var = cast(Tensor, layer.running_mean), cast(Tensor, layer.running_var)
    if inputs and mean.dtype in (torch.float16, torch.bfloat16):
        reduced = [dim for dim in range(inputs[0].dim()) if dim != 1]
        var, mean = torch.var_mean(inputs[0].float(), reduced)
    return mean, var


def _copy(pairs: list[tuple[Tensor, Tensor]]) -> None:
    for buffer, value in pairs:
        buffer.copy_(value)


def _without_compiler() -> AbstractContextManager[Any]:
    """Return a context in which a compiled model runs as it is written, so that hooks run."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return, no-untyped-call, unused-ignore]


def initialize_statistics(
    model: ModelT,
    how: Literal["pretrained", "zero_one", "target"],
    loader: Iterable[Any] | None = None,
    device: torch.device | str | None = None,
) -> ModelT:
    """Set the moving statistics of every BatchNorm, StochNorm and frozen layer before fine-tuning, in place.

    `pretrained` keeps them; in the paper it is the best. `zero_one` sets means to 0 and variances to 1. In the paper
    it is the worst, but still better than BatchNorm: it shows the effect of the two branches alone. `target` computes
    them from the training images with [stochnorm.nn.update_statistics][]. *Stochastic Normalization*, Kou et al.,
    NeurIPS 2020, Section 5.4 and Figure 4a.

    Args:
        model: Any module with its pre-trained weights.
        how: `pretrained`, `zero_one` or `target`.
        loader: For `target`: batches of **training** images; tensors (b, ...), or lists or tuples whose first item is
            the inputs. Otherwise not read.
        device: For `target`: device to move each batch to; None does not move it.

    Returns:
        The model.

    Raises:
        ValueError: Unknown `how`, `target` without batches, or no layer with moving statistics.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(2))
        >>> initialize_statistics(model, "target", [torch.full((4, 2), 3.0)])[0].running_mean
        tensor([3., 3.])
        >>> initialize_statistics(model, "zero_one")[0].running_mean
        tensor([0., 0.])
    """
    if how not in ("pretrained", "zero_one", "target"):
        raise ValueError(f"initial statistics must be pretrained, zero_one or target, got {how!r}")
    layers = _layers(model)
    if how == "target":
        if loader is None:
            raise ValueError("initial statistics of the target data need batches of training images: pass loader")
        update_statistics(model, loader, device)
    elif how == "zero_one":
        for layer in layers:
            layer.reset_running_stats()
    return model


def _layers(model: nn.Module) -> list[_BatchNorm]:
    layers = normalization_layers(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no BatchNorm or StochNorm layer with moving statistics")
    return layers
