"""Cost of Batch Spectral Shrinkage against the singular value decomposition, side by side in one run.

    python benchmarks/bss.py
    python benchmarks/bss.py --dtype bfloat16 --device cuda

Forward and backward for k = 1 on a batch's features, non-negative with a common mean as after ReLU and pooling. "svd"
is torch.linalg.svdvals in float32, the formula as it is written. Ratios are of medians over rounds in which the two
take turns in random order; above 1, the toolkit's way is faster. "error" is the gradient's largest deviation from the
decomposition in float64, as a part of its largest value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from measure import Outcome, arguments, at_least, side_by_side
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


def main() -> None:
    parser = arguments(__doc__, "bss")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=50)
    args = parser.parse_args()

    outcome = Outcome(
        f"Batch Spectral Shrinkage, {args.dtype}",
        ["features", "svd ms", "BSS ms", "svd / BSS", "svd error", "BSS error"],
        "Forward and backward of the penalty on a batch's features. *svd*: by `torch.linalg.svdvals`. *error*: of the "
        "gradient, to the decomposition in float64, as a part of its largest value.",
    )
    ratios = []
    generator = torch.Generator().manual_seed(0)
    for shape in SHAPES:
        features = torch.randn(shape, generator=generator).relu().add(0.5).to(args.device, getattr(torch, args.dtype))
        exact = gradient(svd, features.double())
        ways = (svd, batch_spectral_shrinkage)
        errors = [float((gradient(way, features).double() - exact).abs().max() / exact.abs().max()) for way in ways]
        theirs, ours = side_by_side([partial(gradient, way, features) for way in ways], args.rounds, device=args.device)
        ratios.append(theirs.over(ours))
        row = [" x ".join(map(str, shape)), f"{theirs.median * 1e3:.2f}", f"{ours.median * 1e3:.2f}"]
        outcome.rows.append([*row, f"{ratios[-1]:.1f}", *(f"{error:.0e}" for error in errors)])
    wide = [ratio for ratio, (images, features) in zip(ratios, SHAPES, strict=True) if features > images]
    what = f"speed of BSS to the decomposition, least of {len(wide)} batches with more features than images"
    outcome.goals.append(at_least(2, what, min(wide)))
    outcome.write(args.out)


if __name__ == "__main__":
    main()
