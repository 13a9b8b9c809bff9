"""DELTA's channel attention: which feature maps of a pre-trained network a new task needs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stochnorm.nn.fold import fold_batch_norm
from stochnorm.nn.hooks.modes import evaluating
from stochnorm.nn.hooks.stages import check_layers
from stochnorm.nn.hooks.tail import Tail
from stochnorm.nn.hooks.taps import InputTap

__all__ = ["channel_attention", "image_losses", "loss_increases", "softmax_attention", "train_head"]

# Of the maps that go into a tail at once, on CPU and on GPU; what it makes of them takes a few times as much.
_TAIL_BYTES = (2**25, 2**29)

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


def image_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss of each image (b,): cross-entropy, or the mean of binary cross-entropies with several labels an image.

    Args:
        logits: (b, num_classes).
        targets: (b,) class indices, or (b, num_classes) in {0, 1}.
    """
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets, reduction="none")
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none").mean(1)


def softmax_attention(increases: Tensor) -> Tensor:
    """Channel weights W = softmax(z / 5), z the z-scored loss increases; uniform where all are alike.

    Args:
        increases: (c,), as :func:`loss_increases` gives them.

    Returns:
        (c,), positive, of sum 1.

    Example:
        >>> softmax_attention(torch.tensor([1.0, 3.0]))  # z = -1, 1
        tensor([0.4013, 0.5987])
    """
    centered = increases - increases.mean()
    deviation = centered.square().mean().sqrt()
    return torch.softmax(centered / deviation / 5 if deviation > 0 else torch.zeros_like(centered), 0)


def channel_attention(
    model: nn.Module,
    head: nn.Linear,
    layers: str | Sequence[str],
    batches: Batches,
    *,
    loss: Loss = image_losses,
    epochs: int = 10,
    lr: float = 0.01,
    measured: int = 10,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Tensor]:
    """Channel weights of DELTA as in its paper, section 3.3: a channel weighs by the loss without it.

    A head is trained on the features of the frozen backbone; then the loss is measured with each channel of each
    layer set to zero. The model is left as it is.

    Args:
        model: Pre-trained backbone and new head, on the device to compute on.
        head: The model's last layer.
        layers: Whose output channels are weighed.
        batches: All training images, normalized, with targets; gone through twice, so no generator. In random order,
            since only the first are measured on; the paper's batches have 32 images.
        loss: Loss of each image, (b,), of logits and targets.
        epochs: Of the head.
        lr: Of the head.
        measured: On how many batches the loss increases are measured.
        seed: Of the order in which the head sees the features.
        progress: Told the fraction of the measurement that is done.

    Returns:
        (c,) float32 for each layer, positive, of sum 1.

    Raises:
        ValueError: No batches, a head that is not the model's linear layer, an unknown layer, or one without feature
            maps.
    """
    layers = check_layers(model, layers)  # before long work
    model, head = copy.deepcopy((model, head))
    head.load_state_dict(train_head(model, head, batches, loss=loss, epochs=epochs, lr=lr, seed=seed).state_dict())
    fold_batch_norm(model.eval(), keep=layers)  # a copy, which is evaluated as often as it has channels
    some = list(islice(batches, measured))
    return {
        layer: softmax_attention(increases)
        for layer, increases in loss_increases(model, layers, some, loss=loss, progress=progress).items()
    }


def train_head(
    model: nn.Module,
    head: nn.Linear,
    batches: Batches,
    *,
    loss: Loss = image_losses,
    epochs: int = 10,
    lr: float = 0.01,
    seed: int = 0,
) -> nn.Linear:
    """A copy of a linear head, trained on the frozen backbone's features by SGD with momentum 0.9.

    The backbone is in eval mode and does not change, so each image goes through it once. Features are shuffled into
    new batches each epoch, as large as the first of ``batches``.

    Args:
        model: Backbone and head; left as they are.
        head: A layer of the model.
        batches: Images and targets.
        loss: Loss of each image, (b,).
        epochs: How often each image's features are seen.
        lr: Learning rate.
        seed: Of the order.

    Raises:
        ValueError: No batches, or a head that is not the model's linear layer.
    """
    names = [name for name, module in model.named_modules() if module is head]
    if not names or not isinstance(head, nn.Linear):
        raise ValueError(
            f"DELTA's attention takes a model with a linear head, got {type(head).__name__}, "
            f"{'in' if names else 'not a part of'} {type(model).__name__}; use uniform channel weights "
            "(--delta.attention uniform)"
        )
    features, targets = [], []
    with torch.no_grad(), evaluating(model), InputTap(model, names) as tap:
        for images, wanted in batches:
            model(images)
            features.append(tap.values.pop(names[0]).detach().clone())
            targets.append(wanted)
    if not features:
        raise ValueError("DELTA's attention is measured on training images, got no batch of them")
    batch_size = len(features[0])
    x, y = torch.cat(features), torch.cat(targets)
    trained = copy.deepcopy(head).requires_grad_(True)
    optimizer = torch.optim.SGD(trained.parameters(), lr=lr, momentum=0.9)
    order = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for _ in range(epochs):
            for indices in torch.randperm(len(x), generator=order).to(x.device).split(batch_size):  # type: ignore[no-untyped-call]
                optimizer.zero_grad()
                loss(trained(x[indices]), y[indices]).mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return trained


@torch.inference_mode()
def loss_increases(
    model: nn.Module,
    layers: str | Sequence[str],
    batches: Batches,
    *,
    loss: Loss = image_losses,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Tensor]:
    """By how much the loss grows when a channel of a layer's output is set to zero, averaged over batches.

    Exactly, but without a pass through the whole network for each channel: only the tail behind the layer runs, for
    many pairs of image and channel at once, and not at all for pairs whose channel is zero as it is.

    Args:
        model: Images to logits; measured in eval mode and left as it is.
        layers: Names of modules that put out (b, c, h, w).
        batches: Images and targets.
        loss: Loss of each image, (b,).
        progress: Told the fraction that is done.

    Returns:
        (c,) float32 for each layer.

    Raises:
        ValueError: No batches, or a layer without feature maps.
    """
    layers, batches = check_layers(model, layers), list(batches)
    if not batches:
        raise ValueError("loss increases are measured on images, got no batch of them")
    sums: dict[str, Tensor] = {}
    with evaluating(model):
        for number, (images, targets) in enumerate(batches):
            for position, layer in enumerate(layers):
                tail = Tail(model, layer, images)
                increases = _batch_increases(tail, _pairs(tail.maps), targets, loss)
                sums[layer] = sums.get(layer, 0) + increases / len(batches)
                if progress is not None:
                    progress((number + (position + 1) / len(layers)) / len(batches))
    return {layer: total.float().to(batches[0][0].device, copy=True) for layer, total in sums.items()}


def _pairs(maps: Tensor) -> Tensor:
    """(n, 2): images and channels whose map is not zero as it is; without the others the loss stays what it is."""
    return (maps != 0).flatten(2).any(2).nonzero()


def _batch_increases(tail: Tail, pairs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """(c,) float64 on the CPU, mean over the images of a batch."""
    b, c = tail.maps.shape[:2]
    plain = loss(tail.logits, targets)
    increases = torch.zeros(c, dtype=torch.float64)  # on the CPU, since not every device has float64
    at_once = max(1, _TAIL_BYTES[tail.maps.is_cuda] // (tail.maps[0].numel() * tail.maps.element_size()))
    for chunk in pairs.split(at_once):  # type: ignore[no-untyped-call]
        image, channel = chunk.unbind(1)
        maps = tail.maps[image]
        maps[torch.arange(len(image), device=image.device), channel] = 0
        more = loss(tail(maps, image), targets[image]) - plain[image]
        increases.index_add_(0, channel.cpu(), more.cpu().double())
    return increases / b
