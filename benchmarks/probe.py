"""Time of the linear probe's solver against scikit-learn's LogisticRegression (L-BFGS), side by side in one run.

    python benchmarks/probe.py                                           # 2,000 x 512 x 100
    python benchmarks/probe.py --images 10000 --features 2048 --classes 1000 --rounds 1

One strength C, on random features with a mean of each class. Both standardize the features and have the same objective,
their own tolerances and as many threads. "objective" is the mean loss with the penalty at the end, "agree" the share of
the images for which both answer the same class. Needs scikit-learn: pip install scikit-learn.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from measure import Outcome, arguments, at_least, side_by_side
from stochnorm.training.probe.solver import Linear, path


def draw(images: int, features: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return features (n, d), non-negative and of unequal scales as after pooling, and the classes (n,)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    means = torch.randn(classes, features, generator=generator)
    noise = torch.randn(images, features, generator=generator)
    scales = torch.rand(features, generator=generator) + 0.1
    return (0.4 * means[labels] + noise).relu() * scales, labels


def by_stochnorm(x: Tensor, y: Tensor, classes: int, strength: float) -> Linear:
    (head,) = path(x[None], y, classes, (strength,))
    return head


def by_scikit_learn(x: Tensor, y: Tensor, classes: int, strength: float) -> Linear:
    from sklearn.linear_model import LogisticRegression

    std, mean = x.std(0, correction=0), x.mean(0)
    found = LogisticRegression(C=strength).fit(((x - mean) / std).numpy(), y.numpy())
    weight = torch.from_numpy(np.asarray(found.coef_)).float() / std
    return Linear(weight, torch.from_numpy(np.asarray(found.intercept_)).float() - weight @ mean)


def objective(head: Linear, x: Tensor, y: Tensor, strength: float) -> float:
    """Return the objective of both, divided by C n."""
    penalty = (head.weight * x.std(0, correction=0)).square().sum() / (2 * strength * len(x))
    return float(F.cross_entropy(head(x), y) + penalty)


def main() -> None:
    parser = arguments(__doc__, "probe")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--strength", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    x, y = draw(args.images, args.features, args.classes)
    heads: dict[str, Linear] = {}

    def solve(name: str) -> None:
        way = by_stochnorm if name == "stochnorm" else by_scikit_learn
        heads[name] = way(x, y, args.classes, args.strength)

    names = ("stochnorm", "scikit-learn")
    ours, theirs = side_by_side([partial(solve, name) for name in names], args.rounds, warm_up=0)
    values = [objective(heads[name], x, y, args.strength) for name in names]
    agree = (heads[names[0]](x).argmax(1) == heads[names[1]](x).argmax(1)).float().mean()
    outcome = Outcome(
        "The solver of the linear probe",
        ["images x features x classes", "C", "stochnorm s", "scikit-learn s", "ratio", "objectives", "agree %"],
        "One strength, standardization included, both as they are by default. *ratio*: scikit-learn's time over "
        "stochnorm's. *objectives*: of stochnorm and scikit-learn at their ends.",
    )
    size = f"{args.images:,} x {args.features:,} x {args.classes:,}"
    ends = " and ".join(f"{value:.5f}" for value in values)
    ratio = theirs.over(ours)
    outcome.rows.append(
        [
            size,
            f"{args.strength:g}",
            f"{ours.median:.1f}",
            f"{theirs.median:.1f}",
            f"{ratio:.2f}",
            ends,
            f"{100 * agree:.1f}",
        ]
    )
    outcome.goals.append(at_least(0.5, "speed of the probe's solver to scikit-learn's", ratio))
    outcome.write(args.out)


if __name__ == "__main__":
    main()
