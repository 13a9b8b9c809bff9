"""DELTA's channel attention: measure which feature maps of a pre-trained network a new task needs."""

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

# Bytes of the maps that one call of a tail gets, by device; the call needs a few times as much memory.
_TAIL_BYTES = {"cpu": 2**25, "cuda": 2**29}

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


def image_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each image (b,): cross-entropy, or mean binary cross-entropy with several labels per image.

    Args:
        logits: (b, num_classes).
        targets: (b,) class indices, or (b, num_classes) in {0, 1}.
    """
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets, reduction="none")
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none").mean(1)


def softmax_attention(increases: Tensor) -> Tensor:
    r"""Return channel weights $W = \mathrm{softmax}(z / 5)$ of the z-scored loss increases; uniform if all are equal.

    Args:
        increases: Loss increases (c,).

    Returns:
        (c,), positive, with sum 1.

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
    """Return the channel weights of DELTA (Section 3.3): a channel weighs more if the loss without it is higher.

    It trains a head on the features of the frozen backbone and then measures the loss with each channel of each layer
    set to zero. The model does not change.

    Args:
        model: Pre-trained backbone and new head, on the device to compute on.
        head: The model's last layer.
        layers: Layers whose output channels are weighed.
        batches: All training images, normalized, with targets. They are read twice, so a generator does not work. Use a
            random order, because only the first batches are measured; the paper's batches have 32 images.
        loss: Function of logits and targets that returns the loss of each image, (b,).
        epochs: Number of epochs of the head.
        lr: Learning rate of the head.
        measured: Number of batches for the loss increases.
        seed: Random seed for the order of the features.
        progress: Function that gets the finished fraction of the measurement.

    Returns:
        (c,) float32 for each layer, positive, with sum 1.

    Raises:
        ValueError: No batches, a head that is not the model's linear layer, an unknown layer, or a layer without
            feature maps.
    """
    layers = check_layers(model, layers)  # before long work
    model, head = copy.deepcopy((model, head))
    head.load_state_dict(train_head(model, head, batches, loss=loss, epochs=epochs, lr=lr, seed=seed).state_dict())
    fold_batch_norm(model.eval(), keep=layers)  # the copy runs once per channel
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
    """Return a copy of a linear head, trained on the frozen backbone's features by SGD with momentum 0.9.

    The backbone is in eval mode and does not change, so it runs once per image. Each epoch shuffles the features into
    new batches of the size of the first one.

    Args:
        model: Backbone and head; they do not change.
        head: A layer of the model.
        batches: Images and targets.
        loss: Function that returns the loss of each image, (b,).
        epochs: Number of epochs.
        lr: Learning rate.
        seed: Random seed for the order.

    Raises:
        ValueError: No batches, or a head that is not the model's linear layer.
    """
    names = [name for name, module in model.named_modules() if module is head]
    if not names or not isinstance(head, nn.Linear):
        raise ValueError(
            f"DELTA's attention needs a model with a linear head, got {type(head).__name__}, "
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
        raise ValueError("DELTA's attention needs training images, got no batch")
    batch_size = len(features[0])
    x, y = torch.cat(features), torch.cat(targets)
    trained = copy.deepcopy(head).requires_grad_(True)
    optimizer = torch.optim.SGD(trained.parameters(), lr=lr, momentum=0.9)
    order = torch.Generator().manual_seed(seed)  # on the CPU: the same order on every device
    with torch.enable_grad():
        for _ in range(epochs):
            shuffled = torch.randperm(len(x), generator=order, device="cpu").to(x.device)
            for indices in shuffled.split(batch_size):  # type: ignore[no-untyped-call]
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
    """Return the increase of the loss when a channel of a layer's output is set to zero, averaged over batches.

    The result is exact, but the whole network does not run for each channel. Only the tail behind the layer runs, for
    many pairs of image and channel at once, and it skips pairs whose channel is already zero.

    Args:
        model: Maps images to logits; it runs in eval mode and does not change.
        layers: Names of modules with outputs (b, c, h, w).
        batches: Images and targets.
        loss: Function that returns the loss of each image, (b,).
        progress: Function that gets the finished fraction.

    Returns:
        (c,) float32 for each layer.

    Raises:
        ValueError: No batches, or a layer without feature maps.
    """
    layers, batches = check_layers(model, layers), list(batches)
    if not batches:
        raise ValueError("loss increases need images, got no batch")
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
    """Return (n, 2): images and channels whose map is not zero; a zero map does not change the loss."""
    return (maps != 0).flatten(2).any(2).nonzero()


def _batch_increases(tail: Tail, pairs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Return (c,) float64 on the CPU, the mean over the images of a batch."""
    b, c = tail.maps.shape[:2]
    plain = loss(tail.logits, targets)
    increases = torch.zeros(c, dtype=torch.float64, device="cpu")  # not every device has float64
    most = _TAIL_BYTES.get(tail.maps.device.type, _TAIL_BYTES["cpu"])
    at_once = max(1, most // (tail.maps[0].numel() * tail.maps.element_size()))
    for chunk in pairs.split(at_once):  # type: ignore[no-untyped-call]
        image, channel = chunk.unbind(1)
        maps = tail.maps[image]
        maps[torch.arange(len(image), device=image.device), channel] = 0
        more = loss(tail(maps, image), targets[image]) - plain[image]
        increases.index_add_(0, channel.cpu(), more.cpu().double())
    return increases / b
