"""L2-SP (Li et al.: *Explicit Inductive Bias for Transfer Learning with Convolutional Networks*, ICML 2018)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from stochnorm.regularizers.regularizer import Regularizer, Step, as_modules, wide

__all__ = ["L2SP", "l2_sp"]

SCOPES = ("weights", "all")


def l2_sp(parameters: Sequence[Tensor], anchors: Sequence[Tensor]) -> Tensor:
    r"""Return half the squared distance of parameters from their starting point (Section 3).

    $$ \Omega(w) = \frac{1}{2} \sum_i \lVert w_i - w^0_i \rVert^2 $$

    The gradient, $w_i - w^0_i$, flows only to the parameters and is twice differentiable. It needs the memory of one
    copy of the parameters while it computes the value, and saves only the arguments for backward. On a GPU it does not
    wait for the device.

    Args:
        parameters: Parameters w, any shapes and floating dtypes.
        anchors: Starting point on the parameters' device: for each parameter a tensor of the same shape.

    Returns:
        A scalar.

    Raises:
        ValueError: There are no parameters, or the number or shapes of the anchors differ from the parameters'.

    Example:
        >>> l2_sp([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 0.0])])
        tensor(2.)
    """
    if len(parameters) != len(anchors) or not parameters:
        raise ValueError(
            f"l2_sp needs parameters and one anchor for each, got {len(parameters)} parameters and {len(anchors)} "
            "anchors; clone the parameters before training"
        )
    for parameter, anchor in zip(parameters, anchors, strict=True):
        if parameter.shape != anchor.shape:
            raise ValueError(
                f"an anchor must have its parameter's shape, got {tuple(anchor.shape)} for a parameter of shape "
                f"{tuple(parameter.shape)}; give both in the same order"
            )
    distance: Tensor = _HalfSquaredDistance.apply(len(parameters), *parameters, *anchors)
    return distance


class L2SP(Regularizer):
    r"""A penalty that keeps the backbone near its pre-trained weights and the new head near zero.

    $$ \frac{\alpha}{2} \lVert w - w^0 \rVert^2 + \frac{\beta}{2} \lVert w_{head} \rVert^2 $$

    The constructor copies the anchors $w^0$ in float32 (float64 for float64 parameters), so build it after you load the
    weights and before the first step. The anchors are buffers, so `.to()` and `state_dict()` include them. The model
    keeps its parameters, which are looked up at each step. Parameters that do not require a gradient at construction
    are skipped, and shared ones count once. The penalty replaces weight decay for the parameters that it covers: set
    their weight decay to 0, as the authors do. It does not work under FSDP, which flattens parameters.

    Args:
        model: The network, with or without its head.
        head: The new module or modules, without pre-trained weights; may be empty.
        alpha: Strength of the distance.
        beta: Strength on the head.
        scope: `weights`: only the weights of convolution and linear layers (the authors' code). `all`: also biases and
            the affine parameters of normalization layers. It applies to backbone and head.

    Raises:
        ValueError: An unknown scope, a negative strength, or a backbone without a trainable parameter in the scope.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        >>> regularizer = L2SP(model, [model[1]], alpha=0.1, beta=0.01)
        >>> loss = model(torch.randn(5, 4)).square().mean() + regularizer()
    """

    def __init__(
        self,
        model: nn.Module,
        head: nn.Module | Iterable[nn.Module],
        *,
        alpha: float = 0.1,
        beta: float = 0.01,
        scope: str = "weights",
    ) -> None:
        super().__init__()
        if scope not in SCOPES:
            raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
        if not (alpha >= 0 and beta >= 0):
            raise ValueError(f"alpha and beta must be 0 or more, got alpha={alpha} and beta={beta}")
        self.alpha, self.beta = alpha, beta
        modules = as_modules(head)
        new = {id(parameter) for module in modules for parameter in module.parameters()}
        backbone = {name: place for name, place in _covered(model, scope) if id(getattr(*place)) not in new}
        if not backbone:
            raise ValueError(
                f"L2-SP found nothing to hold: outside the head, {type(model).__name__} has no parameter that requires "
                f"a gradient in the scope {scope!r}; unfreeze some, or set scope='all'"
            )
        # Tuples, so that nn.Module does not register the modules inside.
        self._backbone = tuple(backbone.values())
        self._head = tuple({id(getattr(*at)): at for module in modules for _, at in _covered(module, scope)}.values())
        for name, place in backbone.items():
            parameter = getattr(*place)
            dtype = torch.promote_types(parameter.dtype, torch.float32)
            anchor = parameter.detach().to(dtype, copy=True)
            self.register_buffer(f"anchor/{name.replace('.', '/')}", anchor)  # a buffer's name has no dots

    def forward(self, step: Step | None = None) -> Tensor:
        """Return the penalty of the present parameters; the step is not used."""
        penalty = self.alpha * l2_sp([getattr(*place) for place in self._backbone], list(self.buffers()))
        for place in self._head:
            penalty = penalty + self.beta / 2 * wide(getattr(*place)).square().sum()
        return penalty


def _covered(module: nn.Module, scope: str) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    """Yield the trainable parameters in the scope, each once: the name, the module and its attribute."""
    weights = {
        id(parameter)
        for layer in module.modules()
        if isinstance(layer, (nn.Linear, _ConvNd))
        for name, parameter in layer.named_parameters()
        if name == "weight" or name.startswith("parametrizations.weight.")
    }
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and (scope == "all" or id(parameter) in weights):
            owner, _, attribute = name.rpartition(".")
            yield name, (module.get_submodule(owner), attribute)


class _HalfSquaredDistance(torch.autograd.Function):
    """A few kernels over all tensors at once; autograd would launch several kernels per tensor and direction."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> Tensor:
        ctx.count = count
        ctx.save_for_backward(*tensors)
        differences = torch._foreach_sub(tensors[:count], tensors[count:])
        torch._foreach_mul_(differences, differences)
        # Not _foreach_norm: on CPUs its plain float32 sum has an error of 1e-3 at a million values.
        return torch.stack([squares.sum() for squares in differences]).sum() / 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors, count = ctx.saved_tensors, ctx.count
        differences = torch._foreach_sub(tensors[:count], tensors[count:])
        torch._foreach_mul_(differences, grad)
        return None, *differences, *[None] * count
