"""Cost of Batch Spectral Shrinkage against the singular value decomposition, side by side in one run.

    python benchmarks/bss.py
    python benchmarks/bss.py --dtype bfloat16 --device cuda

Forward and backward for k = 1 on a batch's features, non-negative with a common mean as after ReLU and pooling. "svd"
is torch.linalg.svdvals in float32, the formula as it is written. Ratios are of medians over rounds in which the two
take turns in random order; above 1, the toolkit's way is faster. "error" is the gradient's largest deviation from the
decomposition in float64, as a part of its largest value.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from stochnorm.regularizers import batch_spectral_shrinkage

SHAPES = ((48, 2048), (32, 1280), (64, 512), (256, 2048), (48, 32))  # ResNet-50 first, at the paper's batch size


def svd(features: Tensor) -> Tensor:
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    value: Tensor = torch.linalg.svdvals(wide)[-1:].square().sum()
    return value


def gradient(function: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    features = features.detach().requires_grad_()
    (grad,) = torch.autograd.grad(function(features), features)
    return grad


def side_by_side(functions: list[Callable[[Tensor], Tensor]], features: Tensor, rounds: int) -> list[float]:
    """Median seconds of each function."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds + 2):
        for function, record in random.sample(list(zip(functions, seconds, strict=True)), len(functions)):
            start = time.perf_counter()
            gradient(function, features)
            if features.is_cuda:
                torch.cuda.synchronize()
            record.append(time.perf_counter() - start)
    return [statistics.median(record[2:]) for record in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=50)
    args = parser.parse_args()

    table = Table(title=f"{args.dtype}, {args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in ("features", "svd ms", "BSS ms", "svd / BSS", "svd error", "BSS error"):
        table.add_column(name, justify="right", no_wrap=True)
    generator = torch.Generator().manual_seed(0)
    for shape in SHAPES:
        features = torch.randn(shape, generator=generator).relu().add(0.5).to(args.device, getattr(torch, args.dtype))
        exact = gradient(svd, features.double())
        errors = [
            float((gradient(function, features).double() - exact).abs().max() / exact.abs().max())
            for function in (svd, batch_spectral_shrinkage)
        ]
        seconds = side_by_side([svd, batch_spectral_shrinkage], features, args.rounds)
        table.add_row(
            " x ".join(map(str, shape)),
            *(f"{s * 1e3:.2f}" for s in seconds),
            f"{seconds[0] / seconds[1]:.1f}",
            *(f"{error:.0e}" for error in errors),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
