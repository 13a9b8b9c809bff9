"""Learning without Forgetting: keep the answers of the classifier that the network was pre-trained with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stochnorm.regularizers.regularizer import Regularizer, Step, wide

__all__ = ["LwF", "distillation"]


def distillation(logits: Tensor, reference_logits: Tensor, temperature: float = 2.0) -> Tensor:
    r"""Return the mean divergence of softened answers from those of a reference.

    Li, Hoiem: *Learning without Forgetting*, ECCV 2016, equations 2 and 3. With
    $p = \mathrm{softmax}(z^* / T)$ of the reference and $q = \mathrm{softmax}(z / T)$:

    $$ \frac{1}{b} \sum_{i=1}^{b} \sum_{s} p_{is} (\log p_{is} - \log q_{is}) $$

    The paper has the cross-entropy $-\sum p \log q$, which differs by the entropy of p, a constant: the gradient,
    $(q - p) / (b T)$, is the same, and this is 0 where the answers agree.

    Args:
        logits: Of the network in training, any floating dtype.
        reference_logits: Of the reference; no gradient flows there.
        temperature: T; above 1 makes small probabilities count more.

    Shape:
        - logits, reference_logits: (b, source classes).

    Returns:
        A scalar, at least float32.

    Raises:
        ValueError: The shapes differ, or the temperature is not above 0.

    Example:
        >>> distillation(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]]))
        tensor(0.1109)
    """
    if logits.ndim != 2 or logits.shape != reference_logits.shape:
        raise ValueError(
            f"logits and reference_logits must be of one shape (b, source classes), got {tuple(logits.shape)} and "
            f"{tuple(reference_logits.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    wanted = (wide(reference_logits.detach()) / temperature).log_softmax(1)
    answers = (wide(logits) / temperature).log_softmax(1)
    return F.kl_div(answers, wanted, reduction="batchmean", log_target=True)


class LwF(Regularizer):
    r"""A penalty on answers of the source head that differ from those of the pre-trained network.

    $$ \alpha \, L(z, z^*) $$

    L is [stochnorm.regularizers.lwf.distillation][]. The source head takes the features of the network in training and
    learns with it, as in the paper: give `parameters()` to the optimizer. The reference runs on every step's images,
    in eval mode and without gradient. On a GPU a step does not wait for the device.

    Args:
        head: The classifier that the network was pre-trained with, from features (b, d) to source logits; a child.
        reference: The frozen pre-trained network, from images to source logits; not a child, but it follows `.to()`.
        alpha: Strength.
        temperature: Temperature of the answers.

    Raises:
        ValueError: A negative strength, or a temperature that is not above 0.

    Example:
        >>> import copy
        >>> backbone, head = nn.Flatten(), nn.Linear(12, 5)
        >>> penalty = LwF(head, nn.Sequential(backbone, copy.deepcopy(head)))
        >>> images = torch.rand(2, 3, 2, 2)
        >>> penalty(Step(images, torch.tensor([0, 1]), torch.zeros(2, 2), backbone(images))).abs() < 1e-6
        tensor(True)
    """

    def __init__(self, head: nn.Module, reference: nn.Module, *, alpha: float = 1.0, temperature: float = 2.0) -> None:
        super().__init__()
        if not alpha >= 0:
            raise ValueError(f"alpha must be at least 0, got {alpha!r}: it is the strength of a penalty")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.head, self.alpha, self.temperature = head, alpha, temperature
        self._reference = (reference.eval().requires_grad_(False).to(memory_format=torch.channels_last),)

    def forward(self, step: Step) -> Tensor:
        """Return the penalty of a step."""
        (reference,) = self._reference
        with torch.no_grad():
            wanted = reference.eval()(step.inputs)
        return self.alpha * distillation(self.head(step.features), wanted, self.temperature)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._reference[0]._apply(fn)  # type: ignore[no-untyped-call]  # .to() uses it
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
