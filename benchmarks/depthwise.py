"""A training step of EfficientNet-Lite0 with PyTorch's depthwise convolutions and with the compiled kernel.

    OMP_NUM_THREADS=1 python benchmarks/depthwise.py
    python benchmarks/depthwise.py --image-size 224 --batch-size 16 --dtype float32

Side by side in one process, in turns, in random order; medians. Then each depthwise layer alone, forward and backward.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from layer import forward_backward, side_by_side
from stochnorm.files import write_text
from stochnorm.models import build_classifier
from stochnorm.nn import convert
from stochnorm.nn.depthwise import DepthwiseConv2d, accelerate

CLASSES = tuple(map(str, range(100)))


def network(enabled: bool, stochnorm: bool) -> nn.Module:
    model = build_classifier("tf_efficientnet_lite0", "bundled", CLASSES).model.to(memory_format=torch.channels_last)
    if stochnorm:
        convert(model, p=0.5)
    if enabled and not accelerate(model):
        raise SystemExit("the kernel was not built: python -m pip install -e .")
    return model


def step(
    model: nn.Module, images: torch.Tensor, autocast: Callable[[], AbstractContextManager[Any]]
) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, weight_decay=5e-4)
    targets = torch.arange(len(images)) % len(CLASSES)

    def take() -> None:
        optimizer.zero_grad()
        with autocast():
            loss = F.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()

    return take


def depthwise_layers(model: nn.Module, images: torch.Tensor) -> Counter[tuple[tuple[int, ...], int, int]]:
    """The input shapes, kernels and strides of the depthwise layers, and how many layers have each."""
    found: Counter[tuple[tuple[int, ...], int, int]] = Counter()

    def note(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        found.update([(tuple(inputs[0].shape), layer.kernel_size[0], layer.stride[0])])

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, DepthwiseConv2d)]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--stochnorm", action="store_true", help="with StochNorm in the place of BatchNorm")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("depthwise.json"))
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=dtype is torch.bfloat16)
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size)
    stock, ours = (network(enabled, args.stochnorm) for enabled in (False, True))
    steps = [step(model, images, autocast) for model in (stock, ours)]
    rows = [("training step", 1, *side_by_side(steps, args.rounds, "cpu"))]
    for (shape, kernel, stride), count in depthwise_layers(ours, images).items():
        x, pads = torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last), kernel // 2
        layer = nn.Conv2d(shape[1], shape[1], kernel, stride, pads, groups=shape[1], bias=False).to(dtype)
        grad = torch.randn_like(layer(x)).contiguous(memory_format=torch.channels_last)
        pair = [nn.Conv2d(shape[1], shape[1], kernel, stride, pads, groups=shape[1], bias=False).to(dtype), layer]
        accelerate(layer)
        seconds = side_by_side([partial(forward_backward, m, x.requires_grad_(), grad) for m in pair], 5, "cpu")
        rows.append((f"{' x '.join(map(str, shape))}, {kernel} x {kernel}, stride {stride}", count, *seconds))

    about = {
        **{name: getattr(args, name) for name in ("image_size", "batch_size", "dtype", "stochnorm")},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    table = Table(title=", ".join(f"{name} {value}" for name, value in about.items()))
    for name in ("", "layers", "PyTorch ms", "kernel ms", "ratio"):
        table.add_column(name, justify="right" if name else "left")
    for name, count, theirs, seconds in rows:
        table.add_row(name, str(count), f"{theirs * 1e3:.2f}", f"{seconds * 1e3:.2f}", f"{theirs / seconds:.1f}")
    Console(width=110).print(table)
    keys = ("what", "layers", "pytorch_seconds", "kernel_seconds")
    content = {"conditions": about, "rows": [dict(zip(keys, row, strict=True)) for row in rows]}
    write_text(args.out, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
