"""Bi-Tuning: tell classes, and single images, from keys of earlier images, which a slow copy of the network makes."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stochnorm.nn.hooks.taps import InputTap
from stochnorm.regularizers.regularizer import Regularizer, Step, wide

__all__ = ["BiTuning", "KeyQueue", "contrastive_loss"]


def contrastive_loss(similarities: Tensor, positive: Tensor, present: Tensor, temperature: float = 0.07) -> Tensor:
    r"""Return the mean cross-entropy of telling the positive keys of each image from all keys.

    With the similarities s of an image to the keys K that are present, among them the positive ones P:

    $$ -\frac{1}{b} \sum_{i=1}^{b} \frac{1}{|P_i|} \sum_{j \in P_i}
       \log \frac{\exp(s_{ij} / \tau)}{\sum_{k \in K_i} \exp(s_{ik} / \tau)} $$

    Zhong, Wang, Kou, Wang, Long: *Bi-tuning of Pre-trained Representations*, 2020: both of its losses have this form.

    Args:
        similarities: With gradient.
        positive: bool; each image has a positive key that is present.
        present: bool; a key that is not present does not count.
        temperature: tau, above 0.

    Shape:
        - similarities, positive: (b, keys).
        - present: (b, keys) or (keys,).

    Returns:
        A scalar.

    Example:
        >>> contrastive_loss(torch.zeros(1, 4), torch.tensor([[True, True, False, False]]), torch.ones(4).bool())
        tensor(1.3863)
    """
    shares = (similarities / temperature).masked_fill(~present, -torch.inf).log_softmax(1)
    counted = positive & present
    return -(torch.where(counted, shares, 0.0).sum(1) / counted.sum(1)).mean()


class KeyQueue(nn.Module):
    """The last keys of each class: buffers, so that a checkpoint has them.

    Nothing waits for the device.

    Args:
        classes: Number of classes.
        size: Keys per class.
        widths: Dimension of each kind of key.

    Example:
        >>> queue = KeyQueue(classes=2, size=3, widths=[1])
        >>> queue.add([torch.tensor([[5.0], [7.0]])], torch.tensor([1, 1]))
        >>> queue.keys(0)[queue.present]
        tensor([[5.],
                [7.]])
    """

    added: Tensor

    def __init__(self, classes: int, size: int, widths: list[int]) -> None:
        super().__init__()
        self._size, self._kinds = size, len(widths)
        self.register_buffer("added", torch.zeros(classes, dtype=torch.long))
        for kind, width in enumerate(widths):  # the last place is for keys that newer ones of their batch push out
            self.register_buffer(f"kind{kind}", torch.zeros(classes, size + 1, width))

    def keys(self, kind: int) -> Tensor:
        """Return the keys of a kind, (classes * size, width), class by class."""
        places: Tensor = getattr(self, f"kind{kind}")
        return places[:, :-1].flatten(0, 1)

    @property
    def classes(self) -> Tensor:
        """The class of each key, (classes * size,)."""
        return torch.arange(len(self.added), device=self.added.device).repeat_interleave(self._size)

    @property
    def present(self) -> Tensor:
        """Whether a place has a key yet, (classes * size,)."""
        return (torch.arange(self._size, device=self.added.device) < self.added[:, None]).flatten()

    @torch.no_grad()
    def add(self, keys: list[Tensor], labels: Tensor) -> None:
        """Add keys (b, width) of each kind, in place of the oldest of their classes.

        Args:
            keys: One tensor per kind.
            labels: (b,).
        """
        same = labels[:, None] == labels
        later = same.triu(1).sum(1)  # keys of its class behind it in the batch
        place = (self.added[labels] + same.tril(-1).sum(1)) % self._size
        place = torch.where(later < self._size, place, self._size)
        for kind, values in enumerate(keys):
            places: Tensor = getattr(self, f"kind{kind}")
            places[labels, place] = values.to(places.dtype)
        self.added += (labels[:, None] == torch.arange(len(self.added), device=labels.device)).sum(0)


class BiTuning(Regularizer):
    r"""Contrastive losses of the head and of a projection, against keys of earlier images.

    $$ \lambda \, (L_\text{CCE} + L_\text{CCL}) $$

    Both are [stochnorm.regularizers.bituning.contrastive_loss][]. The contrastive cross-entropy takes a row of the
    head's weights, that of the image's class, and tells the features of the class from those of others; its keys are
    the image's own features, which have the gradient, and those in the queue. The categorical contrastive loss takes
    the image's projected features, and tells the keys of its class from others; its keys are that of the image's
    mirror image, and those in the queue. Features have a 1 appended, for the bias; all vectors have length 1.

    Keys are of the mirror images, by a copy of the network that follows it slowly (weights and moving statistics), in
    eval mode.
    `stepped` moves it and adds the keys of the step to the queue: call it after each step of the optimizer. The
    projection is trained: give the `parameters()` that require a gradient to the optimizer, and `state_dict()` to
    checkpoints.

    Args:
        model: The network as it was pre-trained, with its new head; not a child.
        head: The head: a linear layer, or a convolution of size 1; not a child.
        name: Name of the head in the model.
        projection: From features (b, d) to projected ones; a child.
        strength: lambda.
        temperature: tau.
        momentum: Share of the slow network that each step keeps.
        keys: Keys per class.

    Raises:
        ValueError: A value is out of its range, or the head is of another kind.
    """

    def __init__(
        self,
        model: nn.Module,
        head: nn.Module,
        name: str,
        projection: nn.Linear,
        *,
        strength: float = 1.0,
        temperature: float = 0.07,
        momentum: float = 0.999,
        keys: int = 40,
    ) -> None:
        super().__init__()
        if not (strength >= 0 and temperature > 0 and 0 <= momentum <= 1 and keys >= 1):
            raise ValueError(
                "strength must be at least 0, temperature above 0, momentum in [0, 1] and keys at least 1, got "
                f"{strength}, {temperature}, {momentum} and {keys}"
            )
        weight = getattr(head, "weight", None)
        if not isinstance(weight, Tensor) or weight.flatten(1).size(1) != projection.in_features:
            raise ValueError(
                f"bituning needs a head that is one linear layer on {projection.in_features} features, got "
                f"{type(head).__name__}; choose another backbone"
            )
        self.strength, self.temperature, self.momentum = strength, temperature, momentum
        self._model: tuple[nn.Module] = (model,)
        self._head: tuple[Any] = (head,)
        self._name = name
        self.projection = projection
        self.slow = copy.deepcopy(model).requires_grad_(False)
        self.slow_projection = copy.deepcopy(projection).requires_grad_(False)
        self.queue = KeyQueue(len(weight), keys, [projection.in_features + 1, projection.out_features])
        self._tap = InputTap(self.slow, [name])
        self._pairs: tuple[list[Tensor], list[Tensor]] | None = None
        self._pending: list[tuple[list[Tensor], Tensor]] = []

    def forward(self, step: Step) -> Tensor:
        """Return the losses of a step's images, and keep their keys for `stepped`."""
        features = self._slow_features(step.inputs.flip(-1))
        with torch.autocast(step.features.device.type, enabled=False):
            keys = [_unit(features, one=True), _unit(self.slow_projection(features))]
            if not step.again:
                self._pending.append((keys, step.targets))
            head = self._head[0]
            weight = wide(head.weight.flatten(1))
            bias = weight.new_zeros(len(weight)) if head.bias is None else wide(head.bias)
            rows = F.normalize(torch.cat([weight, bias[:, None]], 1), dim=1)[step.targets]
            own = wide(step.features)
            cce = self._loss(rows, (rows * _unit(own, one=True)).sum(1), 0, step.targets)
            query = _unit(self.projection(own))
            ccl = self._loss(query, (query * keys[1]).sum(1), 1, step.targets)
        return self.strength * (cce + ccl)

    @torch.no_grad()
    def stepped(self) -> None:
        """Move the slow network towards the network, and add the keys of the step to the queue."""
        if self._pairs is None:
            now = dict(chain(self._model[0].state_dict().items(), _prefixed(self.projection)))
            slow = dict(chain(self.slow.state_dict().items(), _prefixed(self.slow_projection)))
            moving = [name for name, tensor in slow.items() if tensor.is_floating_point()]
            self._pairs = [slow[name] for name in moving], [now[name] for name in moving]
        torch._foreach_lerp_(*self._pairs, 1 - self.momentum)
        for keys, labels in self._pending:
            self.queue.add(keys, labels)
        self._pending.clear()

    def forget(self) -> None:
        """Release what the last pass left."""
        self._tap.values.clear()
        self._pending.clear()

    @torch.no_grad()
    def _slow_features(self, images: Tensor) -> Tensor:
        """Return the slow network's features of images, (b, d)."""
        self.slow.eval()(images)
        features = self._tap.values.pop(self._name)
        return wide(features.mean((2, 3)) if features.ndim == 4 else features)

    def _loss(self, query: Tensor, own: Tensor, kind: int, labels: Tensor) -> Tensor:
        """Return the loss of queries (b, width), by their similarity (b,) to their own key and to the queue's."""
        similarities = torch.cat([own[:, None], query @ self.queue.keys(kind).T], 1)
        always = torch.ones_like(labels, dtype=torch.bool)[:, None]
        positive = torch.cat([always, labels[:, None] == self.queue.classes], 1)
        present = torch.cat([always[0], self.queue.present])
        return contrastive_loss(similarities, positive, present, self.temperature)


def _unit(vectors: Tensor, *, one: bool = False) -> Tensor:
    """Return vectors (b, d) at length 1, with a 1 appended before if asked for."""
    return F.normalize(F.pad(vectors, (0, 1), value=1.0) if one else vectors, dim=1)


def _prefixed(projection: nn.Module) -> list[tuple[str, Tensor]]:
    return [(f"projection {name}", tensor) for name, tensor in projection.state_dict().items()]
