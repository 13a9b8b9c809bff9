"""A training step of each method on a GPU, against plain fine-tuning's.

    python benchmarks/gpu_methods.py                                       # two networks, five methods: a minute
    python benchmarks/gpu_methods.py --methods bss delta --seconds 20
    python benchmarks/gpu_methods.py --device cpu --tiny

The step is the job's (objective, regularizers, SGD, sums), batch 48, 224 px, bfloat16, on images that lie on the
device. As in a job it is replayed from a CUDA graph if it can be captured, and launched by Python if not; the table
says which, and why. All methods of a network live in one process and take turns; ratios are of medians. DELTA has
uniform attention: the other kind costs the same per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import torch

from gpu_bare import Case, batch, cases
from gpu_timing import Measured, Work, options, parse, release, settle, take_turns
from stochnorm.training.captured import CapturedStep, obstacle
from stochnorm.training.cuda_graph import CudaGraph
from training_step import training

METHODS = ["stochnorm", "l2sp", "bss", "delta", "stochnorm+delta+bss"]
WARM_UP = 5  # steps; the job captures its graph after three


def step_of(case: Case, method: str, device: str) -> CapturedStep:
    """Return the job's step, in a CUDA graph if nothing forbids it."""
    trained = training(
        case.backbone,
        method,
        batch_size=case.batch_size,
        image_size=case.image_size,
        precision="bf16",
        device=device,
    )
    reason = obstacle(trained.whole)
    graph = None if reason else CudaGraph(torch.device(device))
    return CapturedStep(trained.whole, graph, reason)


def work_of(step: CapturedStep, case: Case, device: str) -> Work:
    """Return a function that takes steps, after the first ones, which end with the capture."""
    inputs, numbers = batch(case, device), count()

    def run() -> None:
        step(next(numbers), inputs)

    for _ in range(WARM_UP):
        run()
    return run


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, "methods", 20)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    args = parse(parser, arguments)

    outcome = Measured.of(
        "methods",
        ["network", "method", "step ms", "to vanilla", "quartiles ms", "CUDA graph"],
        "Medians of steps that the methods take in turns; bfloat16, batch 48, 224 px, images on the device. *CUDA "
        "graph*: whether the step is replayed from one, or else launched by Python, and why.",
    )
    settle(args.device)
    chosen = cases(args.tiny)
    for name, case in chosen.items():
        methods = ["vanilla", *args.methods]
        steps, works = {}, {}
        for method in methods:
            with outcome.part(f"{name}, {method}"):
                steps[method] = step_of(case, method, args.device)
                works[method] = work_of(steps[method], case, args.device)
        calls = 5 if args.device == "cuda" else 1
        rounds = 3 if args.tiny else 30
        timings = take_turns(works, args.device, rounds=rounds, seconds=args.seconds / len(chosen), calls=calls)
        for method, timing in timings.items():
            ratio = timing.over(timings["vanilla"])
            row = [f"{name}, batch {case.batch_size}, {case.image_size} px", method, f"{timing.median * 1e3:.2f}"]
            outcome.rows.append([*row, f"{ratio:.3f}", timing.spread(1e3), steps[method].reason or "yes"])
            outcome.reach(f"step of {method} to vanilla's, {name}", ratio)
        outcome.save(args.out)  # so that what follows cannot cost it
        del steps, works
        release(args.device)
    outcome.write(args.out)


if __name__ == "__main__":
    main()
