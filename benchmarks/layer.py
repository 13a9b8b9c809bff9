"""Training cost of StochNorm2d against nn.BatchNorm2d: forward and backward, layer by layer.

    python benchmarks/layer.py                           # three networks, both dtypes and memory formats: 3 minutes
    python benchmarks/layer.py --compile                 # under torch.compile: one input a network
    python benchmarks/layer.py --networks resnet50 --budget 600
    python benchmarks/layer.py --device cuda

Over the BatchNorm inputs of ResNet-50 and VGG-16-BN (batch 16, 224 px) and EfficientNet-Lite0 (batch 32, 128 px), each
shape once. Ratios are of medians over rounds in which two layers take turns in random order, all to BatchNorm2d:

- "blend" computes both branches with F.batch_norm and mixes them, the obvious implementation.
- "limit" moves the least memory that the algorithm can. Forward reads x for the statistics, and again to write y;
  backward reads x and the gradient for its sums, and both again to write x's gradient: six tensors read, two written.
  Four Tensor.copy_ among four tensors of that size read and write as many bytes together. (A write costs more than a
  read, so it is a rough limit.)

The process keeps freed memory, as the main job's does: page faults, which hit either layer, would hide differences.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import timm
import torch
import torchvision
from torch import Tensor, nn

from blend import TwoBranchBlend
from measure import RESULTS, Goal, Outcome, arguments, at_most, side_by_side
from stochnorm.nn import StochNorm2d
from stochnorm.nn.cpu.memory import keep_freed_memory


class Network(NamedTuple):
    build: Callable[[], nn.Module]
    batch_size: int
    image_size: int


NETWORKS = {
    "ResNet-50": Network(torchvision.models.resnet50, 16, 224),
    "VGG-16-BN": Network(torchvision.models.vgg16_bn, 16, 224),
    "EfficientNet-Lite0": Network(partial(timm.create_model, "tf_efficientnet_lite0"), 32, 128),
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
COLUMNS = ("input", "layers", "dtype", "memory format", "BatchNorm2d ms", "StochNorm2d", "blend", "limit")


class Row(NamedTuple):
    """An input, and seconds there."""

    shape: tuple[int, ...]
    dtype: str
    layout: str
    batch_norm: float
    stoch_norm: float
    blend: float
    limit: float


def batch_norm_shapes(network: Network) -> Counter[tuple[int, ...]]:
    """The input shapes of a network's BatchNorm layers and how many layers have each."""
    shapes: Counter[tuple[int, ...]] = Counter()
    with torch.device("meta"):
        model = network.build()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(lambda _, args: shapes.update([tuple(args[0].shape)]))
        model(torch.empty(network.batch_size, 3, network.image_size, network.image_size))
    return shapes


def forward_backward(layer: nn.Module, x: Tensor, grad: Tensor) -> None:
    torch.autograd.grad(layer(x), [x, *layer.parameters()], grad)


def least_traffic(x: Tensor, grad: Tensor) -> Callable[[], None]:
    """A function that moves the bytes of six reads and two writes of x, among the four tensors that a layer has."""
    y, x_grad = torch.empty_like(x), torch.empty_like(x)

    @torch.no_grad()
    def move() -> None:
        for _ in range(2):
            y.copy_(x)
            x_grad.copy_(grad)

    return move


def measure(
    shape: tuple[int, ...], dtype: str, layout: str, *, device: str, compiled: bool, rounds: int, seconds: float
) -> Row:
    def layer(kind: type[nn.Module]) -> Callable[[], None]:
        module: nn.Module = kind(shape[1], device=device)
        return partial(forward_backward, torch.compile(module) if compiled else module, x, grad)

    if compiled:
        torch.compiler.reset()  # or the compiler gives up after some inputs, and the layers run as they are
    x, grad = (
        torch.randn(shape, device=device).to(getattr(torch, dtype)).contiguous(memory_format=FORMATS[layout])
        for _ in range(2)
    )
    x.requires_grad_()
    batch_norm = layer(nn.BatchNorm2d)
    trio = [batch_norm, layer(StochNorm2d), least_traffic(x, grad)]
    ours = side_by_side(trio, rounds, seconds=0.75 * seconds, warm_up=2, device=device)
    # The blend apart: its temporaries would leave the others the allocator in another state each time.
    pair = side_by_side([batch_norm, layer(TwoBranchBlend)], (rounds + 1) // 2, seconds=0.25 * seconds, device=device)
    first, second, limit = (timing.median for timing in ours)
    return Row(shape, dtype, layout, first, second, first * pair[1].over(pair[0]), limit)


def line(name: str, layers: str, rows: Sequence[tuple[Row, int]]) -> list[str]:
    """A row of the table: one input, or the sum of a network's layers."""
    total, *others = (sum(count * row[i] for row, count in rows) for i in range(3, 7))
    ratios = [f"{other / total:.2f}" for other in others]
    return [name, layers, rows[0][0].dtype, rows[0][0].layout, f"{total * 1e3:.2f}", *ratios]


def summary(rows: Iterable[Row], shapes: dict[str, Counter[tuple[int, ...]]]) -> tuple[list[list[str]], list[Goal]]:
    """The sums over each network's layers, and the goals, by dtype and memory format."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dtype, row.layout), []).append(row)
    lines, goals = [], []
    for (dtype, layout), group in groups.items():
        for network, counts in shapes.items():
            own = [(row, counts[row.shape]) for row in group if row.shape in counts]
            lines.append(line(f"all of {network}", str(counts.total()), own))
        ratios = [row.stoch_norm / row.batch_norm for row in group]
        what = f"StochNorm2d to BatchNorm2d, {dtype}, {layout}, {len(ratios)} inputs"
        goals.append(at_most(1.00, f"{what}: median", statistics.median(ratios)))
        goals.append(at_most(1.15, f"{what}: worst", max(ratios)))
    return lines, goals


def main() -> None:
    parser = arguments(__doc__, "layer")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--budget", type=float, default=160, help="seconds, shared out; large inputs take longer")
    parser.add_argument("--rounds", type=int, default=5, help="at least, of each input")
    parser.add_argument("--compile", action="store_true", help="under torch.compile, the median input of each network")
    args = parser.parse_args()
    if args.compile and args.out == RESULTS / "layer.json":
        args.out = RESULTS / "layer_compiled.json"
    keep_freed_memory()

    shapes = {name: batch_norm_shapes(NETWORKS[name]) for name in args.networks}
    if args.compile:  # takes a minute a network
        for name, counts in shapes.items():
            middle = sorted(counts, key=lambda shape: torch.Size(shape).numel())[len(counts) // 2]
            shapes[name] = Counter({middle: counts[middle]})
    inputs = list(dict.fromkeys(shape for counts in shapes.values() for shape in counts))
    cells = [(shape, dtype, layout) for shape in inputs for dtype in args.dtypes for layout in FORMATS]
    settings = {"device": args.device, "compiled": args.compile, "rounds": args.rounds}
    rows = [measure(*cell, **settings, seconds=args.budget / len(cells)) for cell in cells]

    title = "The layer, forward and backward" + (" under torch.compile" if args.compile else "")
    notes = (
        "Ratios to BatchNorm2d, medians of rounds in which the layers take turns. *blend*: both branches by "
        "`F.batch_norm`, mixed. *limit*: copying as many bytes as the algorithm must move."
    )
    outcome = Outcome(title, COLUMNS, notes)
    sums, goals = summary(rows, shapes)
    outcome.rows += [] if args.compile else sums
    outcome.goals += goals if args.device == "cpu" and not args.compile else []
    for row in rows:
        layers = ", ".join(f"{counts[row.shape]} {name}" for name, counts in shapes.items() if row.shape in counts)
        outcome.rows.append(line(" x ".join(map(str, row.shape)), layers, [(row, 1)]))
    outcome.write(args.out)


if __name__ == "__main__":
    main()
