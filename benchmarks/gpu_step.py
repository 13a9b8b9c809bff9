"""A whole training step on a GPU with BatchNorm, with StochNorm, and with both branches blended.

    python benchmarks/gpu_step.py                 # eager and in a CUDA graph: a minute
    python benchmarks/gpu_step.py --compile       # ResNet-50 under torch.compile: two minutes, most of them compiling
    python benchmarks/gpu_step.py --device cpu --tiny

A step is forward, loss, backward and SGD in bfloat16 autocast, channels_last, on a batch of 48 images of 224 px that
lies on the device (gpu_bare.py). *eager*: a Python loop launches the kernels. *graph*: the whole step is replayed from
a CUDA graph. All models of a network live in one process and take turns; ratios are of medians.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from gpu_bare import WAYS, Case, bare_step, cases
from gpu_timing import Budget, Measured, Work, captured, options, parse, peak_gigabytes, release, settle, take_turns

COLUMNS = ["network", "normalization", "eager ms", "graph ms", "to BatchNorm", "quartiles ms", "images/s", "GB"]
COMPILED = ["network", "normalization", "compiling s", "graph ms", "to BatchNorm", "quartiles ms", "images/s"]


def both_ways(name: str, case: Case, outcome: Measured, device: str, seconds: float) -> None:
    """Add a network's rows."""
    steps = {way: bare_step(case, way, device) for way in WAYS}
    gigabytes: dict[str, float] = {}
    for way, step in steps.items():
        step()
        gigabytes[way] = peak_gigabytes(step, device) - _held(device)
    eager = take_turns(steps, device, rounds=15, seconds=seconds / 2, calls=3 if device == "cuda" else 1)
    graphs: dict[str, Work] = {way: captured(step, device) for way, step in steps.items()}
    timings = take_turns(graphs, device, rounds=30, seconds=seconds / 2, calls=5 if device == "cuda" else 1)
    base = timings["BatchNorm"]
    for way, timing in timings.items():
        row = [_name(name, case), way, f"{eager[way].median * 1e3:.1f}", f"{timing.median * 1e3:.2f}"]
        row += [f"{timing.over(base):.3f}", timing.spread(1e3), f"{case.batch_size / timing.median:.0f}"]
        outcome.rows.append([*row, f"{gigabytes[way]:.2f}"])
    ratio = timings["StochNorm"].over(base)
    outcome.reach(f"time of a StochNorm step to BatchNorm's in a CUDA graph, {name}", ratio)


def compiled(name: str, case: Case, outcome: Measured, device: str, budget: Budget, backend: str) -> None:
    """Add a network's rows under `torch.compile`; both models compile before they are timed."""
    graphs, spent = {}, {}
    for way in ("BatchNorm", "StochNorm"):
        start = time.perf_counter()
        step = bare_step(case, way, device, backend=backend)
        step()
        spent[way] = time.perf_counter() - start
        graphs[way] = captured(step, device)
        print(f"{way} compiled in {spent[way]:.0f} s", flush=True)
    rounds = 30
    timings = take_turns(
        graphs, device, rounds=rounds, seconds=min(budget.left, 10.0), calls=5 if device == "cuda" else 1
    )
    base = timings["BatchNorm"]
    for way, timing in timings.items():
        row = [_name(name, case), way, f"{spent[way]:.0f}", f"{timing.median * 1e3:.2f}", f"{timing.over(base):.3f}"]
        outcome.rows.append([*row, timing.spread(1e3), f"{case.batch_size / timing.median:.0f}"])
    ratio = timings["StochNorm"].over(base)
    outcome.reach(f"time of a compiled StochNorm step to BatchNorm's in a CUDA graph, {name}", ratio)


def _held(device: str) -> float:
    """Gigabytes that tensors hold between steps: all models of the process, and their optimizers."""
    return torch.cuda.memory_allocated() / 1e9 if device == "cuda" else 0.0


def _name(name: str, case: Case) -> str:
    return f"{name}, batch {case.batch_size}, {case.image_size} px"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, "step", 40)
    parser.add_argument("--compile", action="store_true", help="one network, under torch.compile")
    args = parse(parser, arguments)
    if args.compile and args.out == parser.get_default("out"):
        args.out = args.out.with_name("step_compiled.json")

    budget = Budget(args.seconds)
    settle(args.device)
    chosen = cases(args.tiny)
    if args.compile:
        outcome = Measured.of(
            "step_compiled",
            COMPILED,
            "`torch.compile` of the whole model, then a CUDA graph of the step. *compiling*: the first step.",
        )
        name = list(chosen)[-1]
        backend = "aot_eager" if args.tiny else "inductor"  # whose code for a CPU takes minutes to compile
        compiled(name, chosen[name], outcome, args.device, budget, backend)
    else:
        outcome = Measured.of(
            "step",
            COLUMNS,
            "bfloat16 autocast, channels_last, the batch on the device. Ratios and images/s are of the steps in a CUDA "
            "graph. *GB*: what tensors hold in an eager step beyond what they hold between steps, at the most. "
            "*fused*: with activation and residual in the same pass, as StochNorm is here. *blend*: both branches by "
            "`F.batch_norm`, mixed.",
        )
        for name, case in chosen.items():
            with outcome.part(name):
                both_ways(name, case, outcome, args.device, args.seconds / 2 / len(chosen))
            outcome.save(args.out)  # so that what follows cannot cost it
            release(args.device)
    outcome.write(args.out)


if __name__ == "__main__":
    main()
