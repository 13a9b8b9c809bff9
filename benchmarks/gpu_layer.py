"""The layer on a GPU: forward and backward over the BatchNorm inputs of ResNet-50, batch 48, 224 px.

    python benchmarks/gpu_layer.py                                     # bfloat16 and float32, both formats: 2 minutes
    python benchmarks/gpu_layer.py --dtypes float16 --seconds 40 --compile-seconds 0
    python benchmarks/gpu_layer.py --device cpu --tiny

The 53 layers have 12 shapes; a sum counts each as often as it occurs. *device*: the time of forward and backward in a
CUDA graph, with so many inputs that none waits in the L2 cache. *eager*: the same in a Python loop, one input. The
layers take turns, in random order; ratios are of medians (of sums of medians over the 53).

- "pieces": StochNorm from ATen's kernels of synchronized BatchNorm, which runs where Triton does not.
- "blend": both branches by F.batch_norm, mixed. "host mask": the same with a mask that NumPy draws, as the
  Transfer-Learning-Library publishes it; no CUDA graph can hold that.
- "limit": eight passes over the input at the speed of a copy, which are the reads and writes that the algorithm needs.
- "+ ReLU": with the activation behind; "fused" ones do it in the same pass, by `stochnorm.nn.fuse`.
- "compiled": under torch.compile; the inputs that take most of the time first, as many as fit into --compile-seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from gpu_contestants import BASE, BASE_RELU, CONTESTANTS, LIMIT, OURS, OURS_RELU
from gpu_timing import Budget, Measured, Work, captured, copies, options, parse, release, settle, take_turns
from layer import FORMATS, Network, batch_norm_shapes, least_traffic

Shape = tuple[int, ...]
SHAPES = Network(torchvision.models.resnet50, 48, 224)
TINY = Counter({(2, 8, 4, 4): 2, (2, 16, 2, 2): 1})
COMPILED = {BASE: nn.BatchNorm2d, OURS: CONTESTANTS[OURS].make}
NOTES = (
    "Milliseconds of forward and backward, summed over the 53 inputs of ResNet-50, batch 48, 224 px, and ratios: to "
    "*BatchNorm + ReLU* for layers with an activation, to *BatchNorm* for the others. *device*: replayed from a CUDA "
    "graph; *eager*: a Python loop. *limit*: eight passes at the speed of a copy. *pieces*: StochNorm from ATen's "
    "kernels of synchronized BatchNorm. *blend*: both branches, mixed; *host mask*: the same with NumPy's mask, as the "
    "Transfer-Learning-Library publishes it."
)


class Cell(NamedTuple):
    """Seconds of every layer at one input, by name."""

    shape: Shape
    dtype: str
    layout: str
    device: dict[str, float]
    eager: dict[str, float]


def forward_backward(layer: nn.Module, x: Tensor, grad: Tensor) -> None:
    """Compute the output and the gradients of the input and of the parameters that are trained."""
    torch.autograd.grad(layer(x), [x, *(p for p in layer.parameters() if p.requires_grad)], grad)


def inputs(shape: Shape, dtype: str, layout: str, device: str, count: int) -> list[tuple[Tensor, Tensor]]:
    """Return inputs, which require gradients, each with a gradient of its output."""
    made = []
    for _ in range(count):
        x, grad = (
            torch.randn(shape, device=device).to(getattr(torch, dtype)).contiguous(memory_format=FORMATS[layout])
            for _ in range(2)
        )
        made.append((x.requires_grad_(), grad))
    return made


def over_all(function: Callable[[Tensor, Tensor], object], pairs: Sequence[tuple[Tensor, Tensor]]) -> Work:
    """Return a function that calls another one for every input."""

    def run() -> None:
        for x, grad in pairs:
            function(x, grad)

    return run


def measure(shape: Shape, dtype: str, layout: str, *, device: str, rounds: int, seconds: float) -> Cell:
    """Time every layer at one input."""
    size = torch.Size(shape).numel() * getattr(torch, dtype).itemsize
    pairs = inputs(shape, dtype, layout, device, copies(2 * size, device))
    layers = {name: one.make(shape[1]).to(device) for name, one in CONTESTANTS.items()}
    works = {name: over_all(partial(forward_backward, layer), pairs) for name, layer in layers.items()}
    graphs = {name: captured(works[name], device) for name, one in CONTESTANTS.items() if one.graph}
    copying = [least_traffic(x, grad) for x, grad in pairs]
    graphs[LIMIT] = captured(lambda: [copy() for copy in copying], device)
    timings = take_turns(graphs, device, rounds=rounds, seconds=seconds / 2)
    one = {name: partial(forward_backward, layers[name], *pairs[0]) for name, of in CONTESTANTS.items() if of.eager}
    loops = take_turns(one, device, rounds=rounds, seconds=seconds / 2)
    del graphs, works, one  # and the memory that their graphs hold
    release(device)
    return Cell(
        shape,
        dtype,
        layout,
        {name: timing.median / len(pairs) for name, timing in timings.items()},
        {name: timing.median for name, timing in loops.items()},
    )


def compiled(
    counts: Counter[Shape], dtype: str, layout: str, *, device: str, rounds: int, budget: Budget
) -> list[Cell]:
    """Time both layers under torch.compile, the inputs that weigh most first, until the budget is spent."""
    cells: list[Cell] = []
    for shape in sorted(counts, key=lambda shape: -counts[shape] * torch.Size(shape).numel()):
        if not budget.left:
            break
        torch.compiler.reset()  # or the compiler gives up after some inputs, and the layers run as they are
        size = torch.Size(shape).numel() * getattr(torch, dtype).itemsize
        pairs = inputs(shape, dtype, layout, device, copies(2 * size, device))
        works = {}
        for name, make in COMPILED.items():
            layer = torch.compile(make(shape[1]).to(device), fullgraph=True, dynamic=False)
            works[name] = captured(over_all(partial(forward_backward, layer), pairs), device)
        timings = take_turns(works, device, rounds=rounds, seconds=1.0)
        cells.append(Cell(shape, dtype, layout, {n: t.median / len(pairs) for n, t in timings.items()}, {}))
        release(device)
    return cells


def total(cells: Sequence[Cell], counts: Counter[Shape], name: str, *, eager: bool = False) -> float:
    """Return the seconds of a layer over all inputs."""
    return sum(counts[cell.shape] * (cell.eager if eager else cell.device)[name] for cell in cells)


def table(groups: Sequence[Sequence[Cell]], counts: Counter[Shape]) -> list[list[str]]:
    """Return a row per layer, in a CUDA graph and in a Python loop, with a column per dtype and format."""
    rows = []
    for eager in (False, True):
        for name in groups[0][0].eager if eager else groups[0][0].device:
            row = [name, "eager" if eager else "device"]
            for cells in groups:
                seconds = total(cells, counts, name, eager=eager)
                base = total(cells, counts, base_of(name), eager=eager)
                row.append(f"{seconds * 1e3:.2f}" + ("" if name == base_of(name) else f" ({seconds / base:.2f})"))
            rows.append(row)
    worst = [max(cell.device[OURS] / cell.device[BASE] for cell in cells) for cells in groups]
    rows.append([f"{OURS}, worst input", "device", *(f"({ratio:.2f})" for ratio in worst)])
    return rows


def compiled_rows(outcome: Measured, cells: Sequence[Cell], counts: Counter[Shape]) -> list[list[str]]:
    """Return the rows of both layers under torch.compile, and add the goal."""
    some = sum(counts[cell.shape] for cell in cells)
    times = {name: total(cells, counts, name) for name in COMPILED}
    rows = []
    for name, value in times.items():
        ratio = "" if name == BASE else f" ({value / times[BASE]:.2f})"
        label = f"compiled {name}, {some} of {counts.total()} inputs"
        rows.append([label, "device", f"{value * 1e3:.2f}{ratio}"])
    where = f"{cells[0].dtype}, {cells[0].layout}"
    what = f"compiled StochNorm to compiled BatchNorm, device time, {where}"
    outcome.reach(what, times[OURS] / times[BASE])
    return rows


def base_of(name: str) -> str:
    return CONTESTANTS[name].base if name in CONTESTANTS else BASE


def detail(cell: Cell, layers: int) -> list[str]:
    """Return the row of one input: milliseconds of every layer."""
    seconds = [*cell.device.values(), *cell.eager.values()]
    head = [" x ".join(map(str, cell.shape)), f"{layers}", cell.dtype, cell.layout]
    return [*head, *(f"{1e3 * value:.4f}" for value in seconds)]


def goals(outcome: Measured, cells: Sequence[Cell], counts: Counter[Shape]) -> None:
    """Add the goals of one dtype and format."""
    where = f"{cells[0].dtype}, {cells[0].layout}"

    def ratio(name: str, base: str, *, eager: bool = False) -> float:
        return total(cells, counts, name, eager=eager) / total(cells, counts, base, eager=eager)

    n = f"{counts.total()} inputs"
    outcome.reach(f"device time of StochNorm to BatchNorm, {n}, {where}", ratio(OURS, BASE))
    worst = max(cell.device[OURS] / cell.device[BASE] for cell in cells)
    outcome.reach(f"device time of StochNorm to BatchNorm, worst input, {where}", worst)
    outcome.reach(f"device time of StochNorm + ReLU to BatchNorm + ReLU, {n}, {where}", ratio(OURS_RELU, BASE_RELU))
    outcome.reach(f"eager time of StochNorm to BatchNorm, {n}, {where}", ratio(OURS, BASE, eager=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, "layer", 45)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=["channels_last", "contiguous"])
    parser.add_argument("--rounds", type=int, default=20, help="at most, of each input")
    parser.add_argument("--compile-seconds", type=float, default=20, help="0: no torch.compile")
    args = parse(parser, arguments)

    counts = TINY if args.tiny else batch_norm_shapes(SHAPES)
    kinds = [(dtype, layout) for dtype in args.dtypes for layout in args.formats]
    outcome = Measured.of("layer", ["layer", "time", *map(", ".join, kinds)], NOTES)
    settle(args.device)
    each = {"device": args.device, "rounds": 3 if args.tiny else args.rounds}
    seconds = args.seconds / len(kinds) / len(counts) / 2  # the other half: compiling, capturing
    groups: list[list[Cell]] = []
    under_compiler: list[list[str]] = []
    for dtype, layout in kinds:
        groups.append([measure(shape, dtype, layout, **each, seconds=seconds) for shape in counts])
        goals(outcome, groups[-1], counts)
        first = groups[0][0]
        eager = [f"{name}, eager" for name in first.eager]
        outcome.detail_columns = ["input", "layers", "dtype", "format", *first.device, *eager]
        outcome.details += [detail(cell, counts[cell.shape]) for cell in groups[-1]]
        if args.compile_seconds and len(groups) == 1:
            with outcome.part("torch.compile"):
                cells = compiled(counts, dtype, layout, **each, budget=Budget(args.compile_seconds))
                under_compiler = compiled_rows(outcome, cells, counts)
        outcome.rows = [row + [""] * (2 + len(kinds) - len(row)) for row in table(groups, counts) + under_compiler]
        outcome.save(args.out)  # so that what follows cannot cost it
        print(f"{dtype}, {layout}: done", flush=True)
    outcome.write(args.out)


if __name__ == "__main__":
    main()
