"""Training cost of StochNorm2d against nn.BatchNorm2d: forward and backward, eager, side by side in one run.

    python benchmarks/layer.py                  # float32, batch 16, 224 px, contiguous and channels_last
    python benchmarks/layer.py --dtype bfloat16 --device cuda

Over the BatchNorm inputs of ResNet-50. "blend" computes both branches with F.batch_norm and mixes them, the obvious
implementation. Ratios are of medians over rounds in which the two layers take turns in random order.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from stochnorm.nn import StochNorm2d


class TwoBranchBlend(nn.BatchNorm2d):
    """Both branches in full, then s * batch + (1 - s) * moving."""

    def forward(self, input: Tensor) -> Tensor:
        s = (torch.rand(self.num_features, device=input.device) < 0.5).to(input.dtype).view(-1, 1, 1)
        moving = F.batch_norm(
            input, self.running_mean.clone(), self.running_var.clone(), self.weight, self.bias, False, 0.0, self.eps
        )
        batch = F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, True, self.momentum, self.eps
        )
        return s * batch + (1 - s) * moving


def batch_norm_shapes(batch_size: int, image_size: int) -> Counter[tuple[int, ...]]:
    """The input shapes of ResNet-50's BatchNorm layers and how many layers have each."""
    shapes: Counter[tuple[int, ...]] = Counter()
    with torch.device("meta"):
        model = torchvision.models.resnet50()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(lambda _, args: shapes.update([tuple(args[0].shape)]))
        model(torch.empty(batch_size, 3, image_size, image_size))
    return shapes


def forward_backward(layer: nn.Module, x: Tensor, grad: Tensor) -> None:
    torch.autograd.grad(layer(x), [x, *layer.parameters()], grad)


def side_by_side(functions: list[Callable[[], None]], rounds: int, device: str) -> list[float]:
    """Median seconds of each function. They take turns in random order, so that a slow spell of the machine, or the
    memory that the one before left warm, hits all of them alike."""
    seconds: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + 0.6  # small layers get more rounds
    while len(seconds[0]) < rounds + 2 or time.perf_counter() < end:
        for function, record in random.sample(list(zip(functions, seconds, strict=True)), len(functions)):
            start = time.perf_counter()
            function()
            if device == "cuda":
                torch.cuda.synchronize()
            record.append(time.perf_counter() - start)
    return [statistics.median(record[2:]) for record in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()

    table = Table(
        title=f"{args.dtype}, {args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}: "
        "ratio to nn.BatchNorm2d, forward + backward"
    )
    for name in ("input", "layers", "memory format", "BatchNorm2d ms", "StochNorm2d", "blend"):
        table.add_column(name, justify="left" if name == "memory format" else "right", no_wrap=True)
    ratios: list[tuple[float, float]] = []
    totals = [0.0, 0.0, 0.0]
    for shape, count in batch_norm_shapes(args.batch_size, args.image_size).items():
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x, grad = (
                torch.randn(shape, device=args.device)
                .to(getattr(torch, args.dtype))
                .contiguous(memory_format=memory_format)
                for _ in range(2)
            )
            x.requires_grad_()
            batch_norm, stoch_norm, blend = (
                partial(forward_backward, layer(shape[1], device=args.device), x, grad)
                for layer in (nn.BatchNorm2d, StochNorm2d, TwoBranchBlend)
            )
            # In pairs: the blend's temporaries would leave the other two the allocator in another state each time.
            seconds = side_by_side([batch_norm, stoch_norm], args.rounds, args.device)
            blend_seconds = side_by_side([batch_norm, blend], 10, args.device)
            ratios.append((seconds[1] / seconds[0], blend_seconds[1] / blend_seconds[0]))
            per_network = (seconds[0], seconds[1], seconds[0] * ratios[-1][1])
            totals = [total + count * s for total, s in zip(totals, per_network, strict=True)]
            table.add_row(
                " x ".join(map(str, shape)),
                str(count),
                str(memory_format).removeprefix("torch."),
                f"{seconds[0] * 1e3:.2f}",
                *(f"{ratio:.2f}" for ratio in ratios[-1]),
            )
    table.add_section()
    ours, blend = zip(*ratios, strict=True)
    table.add_row("median", "", "", "", f"{statistics.median(ours):.2f}", f"{statistics.median(blend):.2f}")
    table.add_row("largest", "", "", "", f"{max(ours):.2f}", f"{max(blend):.2f}")
    table.add_row(
        "all layers", "53", "both", f"{totals[0] * 1e3:.0f}", *(f"{total / totals[0]:.2f}" for total in totals[1:])
    )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
