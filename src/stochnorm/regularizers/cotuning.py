"""Co-Tuning: train the pre-training classifier, too, on what its classes have to do with the new ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stochnorm.regularizers.regularizer import Regularizer, Step, wide

__all__ = ["CoTuning", "direct_relationship", "relationship_loss", "reverse_relationship"]

_STRENGTHS = tuple(10.0**k for k in range(-4, 1))  # of the L2 penalty per image, to choose from
_SCALES = tuple(10 ** (k / 20) for k in range(-40, 21))  # of the logits, to calibrate by: 0.01 to 10
_HELD_OUT = 5  # every fifth image of a class chooses


def direct_relationship(probabilities: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    r"""Return the mean answer of the source classifier to the images of each class: $p(y_s \mid y_t)$.

    You, Kou, Long, Wang: *Co-Tuning for Transfer Learning*, NeurIPS 2020, the direct approach.

    Args:
        probabilities: (n, source classes): answers of the pre-trained network to the training images.
        labels: (n,): their classes.
        num_classes: Number of classes; each has an image.

    Returns:
        (num_classes, source classes), in the dtype of the probabilities; rows sum to 1.

    Raises:
        ValueError: A class has no image.

    Example:
        >>> direct_relationship(torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]), torch.tensor([0, 0, 1]), 2)
        tensor([[0.7000, 0.3000],
                [0.1000, 0.9000]])
    """
    member = _members(labels, num_classes).to(probabilities)
    return member.T @ probabilities / member.sum(0)[:, None]


def reverse_relationship(probabilities: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    r"""Return $p(y_s \mid y_t)$ by a calibrated logistic regression of the class on the source answers.

    You, Kou, Long, Wang: *Co-Tuning for Transfer Learning*, NeurIPS 2020, the reverse approach. With the answers
    $\pi(x)$ of the pre-trained network, multinomial logistic regression gives
    $p(y_t \mid x) = \mathrm{softmax}(\tau W \pi(x))$; W has an L2 penalty, and its strength and $\tau$ are those of the
    lowest cross-entropy on every fifth image of each class, which W was not fitted on. An image that is certainly of
    source class s has $\pi = e_s$, so

    $$ p(y_t \mid y_s = s) = \mathrm{softmax}(\tau W_{:, s}), \qquad
       p(y_s \mid y_t) \propto p(y_t \mid y_s) \, p(y_s) $$

    with $p(y_s)$ the mean of $\pi(x)$ over the training images.

    Args, returns and errors are those of [stochnorm.regularizers.cotuning.direct_relationship][]; computed in float64.

    Example:
        >>> answers = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).repeat(10, 1)
        >>> reverse_relationship(answers, torch.tensor([0, 1]).repeat(10), 2).argmax(1)
        tensor([0, 1])
    """
    given, member = probabilities.double(), _members(labels, num_classes)
    place = (member.cumsum(0) * member).sum(1)  # 1 for the first image of its class
    held = place % _HELD_OUT == 0
    if not held.any():
        held = place == place.max()  # few images: the last of the largest classes
    fitted = ~held
    best: tuple[float, Tensor] | None = None
    for strength in _STRENGTHS:
        weight = _logistic_regression(given[fitted], labels[fitted], num_classes, strength)
        logits = given[held] @ weight.T
        for scale in _SCALES:
            loss = float(nn.functional.cross_entropy(scale * logits, labels[held]))
            if best is None or loss < best[0]:
                best = loss, scale * weight
    assert best is not None
    joint = best[1].softmax(0) * given.mean(0)
    return (joint / joint.sum(1, keepdim=True)).to(probabilities)


def relationship_loss(source_logits: Tensor, relationship: Tensor, targets: Tensor) -> Tensor:
    r"""Return the cross-entropy of the source head with the relationship of each image's class.

    $$ -\frac{1}{b} \sum_{i=1}^{b} \sum_s p(s \mid y_i) \log \mathrm{softmax}(z_i)_s $$

    Args:
        source_logits: (b, source classes), of the source head, with gradient.
        relationship: (num_classes, source classes): p(y_s | y_t).
        targets: (b,) class numbers, or (b, num_classes) weights of the classes of mixed images.

    Returns:
        A scalar, at least float32.

    Example:
        >>> relationship_loss(torch.zeros(1, 4), torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0]]), torch.tensor([1]))
        tensor(1.3863)
    """
    wanted = relationship[targets] if targets.ndim == 1 else targets.to(relationship) @ relationship
    return -(wanted * wide(source_logits).log_softmax(1)).sum(1).mean()


class CoTuning(Regularizer):
    r"""A loss of the source head on what the images' classes mean in the classes of pre-training.

    $$ \lambda \, L(z, p(y_s \mid y_t)) $$

    L is [stochnorm.regularizers.cotuning.relationship_loss][]. The source head takes the features of the network in
    training and learns with it: give `parameters()` to the optimizer. On a GPU a step does not wait for the device.

    Args:
        head: The classifier that the network was pre-trained with, from features (b, d) to source logits; a child.
        relationship: (num_classes, source classes): p(y_s | y_t), a buffer; rows sum to 1.
        strength: lambda.

    Raises:
        ValueError: A negative strength, or a relationship whose rows are no distributions.

    Example:
        >>> penalty = CoTuning(nn.Linear(6, 4), torch.full((2, 4), 0.25))
        >>> penalty(Step(torch.empty(3, 3, 4, 4), torch.tensor([0, 1, 1]), torch.zeros(3, 2), torch.zeros(3, 6))) > 1.3
        tensor(True)
    """

    relationship: Tensor

    def __init__(self, head: nn.Module, relationship: Tensor, *, strength: float = 1.0) -> None:
        super().__init__()
        if not strength >= 0:
            raise ValueError(f"strength must be at least 0, got {strength!r}: it is the weight of a loss")
        sums = relationship.sum(-1)
        if relationship.ndim != 2 or not (relationship >= 0).all() or not torch.allclose(sums, torch.ones_like(sums)):
            raise ValueError(
                f"relationship must have a distribution over the source classes in each row, got shape "
                f"{tuple(relationship.shape)} with sums from {float(sums.min()):g} to {float(sums.max()):g}"
            )
        self.head, self.strength = head, strength
        self.register_buffer("relationship", relationship.detach().clone())

    def forward(self, step: Step) -> Tensor:
        """Return the loss of a step's images."""
        return self.strength * relationship_loss(self.head(step.features), self.relationship, step.targets)


def _members(labels: Tensor, num_classes: int) -> Tensor:
    """Return (n, num_classes) in {0, 1}: whether an image is of a class; raise ValueError where a class has none."""
    member = nn.functional.one_hot(labels, num_classes)
    if empty := (member.sum(0) == 0).nonzero().flatten().tolist():
        raise ValueError(f"each class needs a training image to learn its relationship from; class {empty[0]} has none")
    return member


def _logistic_regression(inputs: Tensor, labels: Tensor, num_classes: int, strength: float) -> Tensor:
    """Return the weight (num_classes, d) of a multinomial logistic regression without bias, with an L2 penalty."""
    weight = torch.zeros(num_classes, inputs.size(1), dtype=inputs.dtype, device=inputs.device, requires_grad=True)
    solver = torch.optim.LBFGS([weight], max_iter=100, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = nn.functional.cross_entropy(inputs @ weight.T, labels) + strength / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        solver.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach()
