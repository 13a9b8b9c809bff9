"""A training step of each method on each backbone, its time and peak memory against plain fine-tuning.

    python benchmarks/methods.py                                    # two backbones, six methods: 3 minutes
    python benchmarks/methods.py --backbones torchvision/vgg16_bn --methods stochnorm delta --rounds 9
    python benchmarks/methods.py --all                              # every method

The step is the main job's, at the backbone's own size. Time: in one process the method and plain fine-tuning take steps
in turns, in random order; the ratio is of their medians. Memory: the most that two steps and the model add to a fresh
process. DELTA with uniform attention: the other kind costs the same per step.
"""

from __future__ import annotations

from measure import Outcome, Timing, arguments, at_most, cost, in_child, side_by_side
from training import BUNDLED, training

BACKBONES = [BUNDLED, "torchvision/resnet50"]
METHODS = ["stochnorm", "l2sp", "bss", "delta", "stochnorm+delta+bss"]
ALL = [*METHODS, "bin", "frozen", "stochnorm+l2sp", "stochnorm+delta", "stochnorm+bss"]
LIMITS = {"l2sp": 1.05, "bss": 1.03, "delta": 1.40, "stochnorm+delta+bss": 1.50}


def memory(backbone: str, method: str, batch_size: int) -> float:
    """Gigabytes that two steps, and the model, add to this process."""

    def steps() -> None:
        trained = training(backbone, method, batch_size=batch_size)
        trained.step()
        trained.step()

    return cost(steps).grown


def times(backbone: str, methods: list[str], batch_size: int, rounds: int) -> list[tuple[Timing, Timing]]:
    """Of each method's steps, and of plain fine-tuning's beside it."""
    vanilla = training(backbone, batch_size=batch_size)
    pairs = []
    for method in methods:
        trained = training(backbone, method, batch_size=batch_size)
        ours, plain = side_by_side([trained.step, vanilla.step], rounds)
        pairs.append((ours, plain))
    return pairs


def main() -> None:
    parser = arguments(__doc__, "methods")
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--all", action="store_true", help="every method")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()

    outcome = Outcome(
        f"The methods, a training step of {args.batch_size} images",
        ["backbone", "method", "step s", "to vanilla", "memory GB", "to vanilla"],
        "Medians of steps that a method and plain fine-tuning (vanilla) take in turns; memory is what two steps and "
        "the model add to a fresh process.",
    )
    methods = ["vanilla", *(ALL if args.all else args.methods)]
    for backbone in args.backbones:
        gigabytes = {method: in_child(memory, backbone, method, args.batch_size) for method in methods}
        base = gigabytes["vanilla"]
        pairs = in_child(times, backbone, methods, args.batch_size, args.rounds)
        for (method, grown), (ours, plain) in zip(gigabytes.items(), pairs, strict=True):
            ratio = ours.over(plain)
            row = [backbone, method, f"{ours.median:.3f}", f"{ratio:.2f}", f"{grown:.2f}", f"{grown / base:.2f}"]
            outcome.rows.append(row)
            if method in LIMITS:
                outcome.goals.append(at_most(LIMITS[method], f"step of {method} to vanilla's, {backbone}", ratio))
    outcome.write(args.out)


if __name__ == "__main__":
    main()
