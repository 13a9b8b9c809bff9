"""A training step of each method on each backbone, its time and peak memory against plain fine-tuning.

    python benchmarks/methods.py                                    # two backbones, six methods: 3 minutes
    python benchmarks/methods.py --backbones torchvision/vgg16_bn --methods stochnorm delta --rounds 9
    python benchmarks/methods.py --all                              # every method, four backbones: 15 minutes

The step is the main job's, at the backbone's own size. Time: in one process the method and plain fine-tuning take steps
in turns, in random order; the ratio is of their medians. Memory: the most that tensors hold in a step beyond what they
hold between steps. DELTA with uniform attention: the other kind costs the same per step.
"""

from __future__ import annotations

from typing import NamedTuple

from measure import Outcome, Timing, arguments, at_most, in_child, side_by_side
from training_step import BUNDLED, step_memory, training

BACKBONES = [BUNDLED, "torchvision/resnet50"]
PAPERS = [*BACKBONES, "torchvision/vgg16_bn", "torchvision/inception_v3"]
METHODS = ["stochnorm", "l2sp", "bss", "delta", "stochnorm+delta+bss"]
ALL = [*METHODS, "bin", "frozen", "stochnorm+l2sp", "stochnorm+delta", "stochnorm+bss"]
LIMITS = {"l2sp": 1.05, "bss": 1.03, "delta": 1.40, "stochnorm+delta+bss": 1.50}
GIGABYTES = (
    "GB is what tensors hold in a step beyond what they hold between steps, at the most; between steps DELTA keeps its "
    "reference and L2-SP its anchors, each as large as the model."
)


class Step(NamedTuple):
    ours: Timing
    plain: Timing
    """Steps of plain fine-tuning, in turn with ours."""
    gigabytes: float
    precision: str


def steps(backbone: str, methods: list[str], batch_size: int, rounds: int) -> list[Step]:
    """Return the steps of each method."""
    vanilla = training(backbone, batch_size=batch_size)
    found = []
    for method in methods:
        trained = training(backbone, method, batch_size=batch_size)
        timings = side_by_side([trained.step, vanilla.step], rounds)
        found.append(Step(*timings, step_memory(trained), trained.precision))
    return found


def one_by_one(found: dict[str, dict[str, Step]], batch_size: int) -> Outcome:
    """A row for each backbone and method."""
    outcome = Outcome(
        f"The methods, a training step of {batch_size} images",
        ["backbone", "precision", "method", "step s", "to vanilla", "memory GB", "to vanilla"],
        f"Medians of steps that a method and plain fine-tuning (vanilla) take in turns. {GIGABYTES}",
    )
    for backbone, of_methods in found.items():
        base = of_methods["vanilla"].gigabytes
        for method, step in of_methods.items():
            ratio = step.ours.over(step.plain)
            row = [backbone, step.precision, method, f"{step.ours.median:.3f}", f"{ratio:.2f}"]
            outcome.rows.append([*row, f"{step.gigabytes:.3f}", f"{step.gigabytes / base:.2f}"])
            if method in LIMITS:
                outcome.goals.append(at_most(LIMITS[method], f"step of {method} to vanilla's, {backbone}", ratio))
    return outcome


def side_by_backbone(found: dict[str, dict[str, Step]], batch_size: int) -> Outcome:
    """A row for each method, two columns for each backbone."""
    plain = {backbone: of_methods["vanilla"] for backbone, of_methods in found.items()}
    absolute = "; ".join(f"{b} {s.ours.median:.2f} s, {s.gigabytes:.2f} GB, {s.precision}" for b, s in plain.items())
    outcome = Outcome(
        f"Every method on {len(found)} backbones, a training step of {batch_size} images",
        ["method", *(f"{backbone.rpartition('/')[2]}: {what}" for backbone in found for what in ("time", "memory"))],
        "Ratios to plain fine-tuning (vanilla), of medians of steps that both take in turns; its own row is it against "
        f"itself, which is the error of the others. Vanilla: {absolute}. {GIGABYTES}",
    )
    for method in next(iter(found.values())):
        row = [method]
        for backbone, of_methods in found.items():
            step = of_methods[method]
            row += [f"{step.ours.over(step.plain):.2f}", f"{step.gigabytes / plain[backbone].gigabytes:.2f}"]
        outcome.rows.append(row)
    return outcome


def main() -> None:
    parser = arguments(__doc__, "methods")
    parser.add_argument("--backbones", nargs="+")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--all", action="store_true", help="every method, also on the paper's backbones")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()

    methods = ["vanilla", *(ALL if args.all else args.methods)]
    found = {
        backbone: dict(zip(methods, in_child(steps, backbone, methods, args.batch_size, args.rounds), strict=True))
        for backbone in args.backbones or (PAPERS if args.all else BACKBONES)
    }
    if args.all:
        out = args.out.with_name("methods_all.json") if args.out == parser.get_default("out") else args.out
        side_by_backbone(found, args.batch_size).write(out)
    else:
        one_by_one(found, args.batch_size).write(args.out)


if __name__ == "__main__":
    main()
