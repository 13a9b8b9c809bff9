"""A training step of each method on a GPU, against plain fine-tuning's.

    python benchmarks/gpu_methods.py                                       # two networks, five methods: a minute
    python benchmarks/gpu_methods.py --methods bss delta --seconds 20
    python benchmarks/gpu_methods.py --device cpu --tiny

The step is the job's (objective, regularizers, SGD), batch 48, 224 px, bfloat16, on images that lie on the device. A
method's step is replayed from a CUDA graph if it can be captured, and launched by Python if not; the table says which,
and why. All methods of a network live in one process and take turns; ratios are of medians. DELTA has uniform
attention: the other kind costs the same per step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from gpu_bare import Case, batch, cases
from gpu_timing import Measured, Work, captured, options, parse, release, settle, take_turns
from training import training

METHODS = ["stochnorm", "l2sp", "delta", "stochnorm+delta+bss", "bss"]  # what may not be captured comes last


def step_of(case: Case, method: str, device: str) -> Callable[[], None]:
    """Return a function that takes a step of the job."""
    trained = training(
        case.backbone,
        method,
        batch_size=case.batch_size,
        image_size=case.image_size,
        precision="bf16",
        device=device,
    )
    images, targets = batch(case, device)
    return partial(trained.on, images, targets)


def as_it_runs(step: Work, device: str) -> tuple[Work, str]:
    """Return the step as a CUDA graph, or the step itself and the reason."""
    try:
        return captured(step, device), "yes"
    except RuntimeError as error:
        return step, f"no: {str(error).splitlines()[0][:80]}"


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
        steps = {method: as_it_runs(step_of(case, method, args.device), args.device) for method in methods}
        works = {method: work for method, (work, _) in steps.items()}
        calls = 5 if args.device == "cuda" else 1
        rounds = 3 if args.tiny else 30
        timings = take_turns(works, args.device, rounds=rounds, seconds=args.seconds / len(chosen), calls=calls)
        for method, timing in timings.items():
            ratio = timing.over(timings["vanilla"])
            row = [f"{name}, batch {case.batch_size}, {case.image_size} px", method, f"{timing.median * 1e3:.2f}"]
            outcome.rows.append([*row, f"{ratio:.3f}", timing.spread(1e3), steps[method][1]])
            outcome.reach(f"step of {method} to vanilla's, {name}", ratio)
        outcome.save(args.out)  # so that what follows cannot cost it
        del steps, works
        release(args.device)
    outcome.write(args.out)


if __name__ == "__main__":
    main()
