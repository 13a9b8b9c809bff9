"""``stochnorm compare`` on a GPU: ten runs against the sum of their steps.

    python benchmarks/gpu_grid.py                       # ten runs of 300 steps: a minute
    python benchmarks/gpu_grid.py --steps 1000 --workers 1
    python benchmarks/gpu_grid.py --device cpu --tiny

EfficientNet-Lite0, batch 48, 224 px, bfloat16, vanilla and stochnorm, five repetitions each, on 500 generated training
images. The sum: for each run, its steps times the bare step of its method in a CUDA graph (gpu_bare.py), so that a
ratio of 1 would be a grid without start, images, validation, test and files. The comparison is timed from its call to
its records, workers that start included.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gpu_bare import cases
from gpu_job import METHODS, bare, photographs, settings
from gpu_timing import Measured, options, parse, release, settle
from stochnorm.comparison.compare import compare
from stochnorm.comparison.grid import Grid, Variant


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, "grid", 60)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="0: as many as stochnorm compare takes by itself")
    args = parse(parser, arguments)
    if args.tiny:
        args.steps, args.repeats, args.workers = 2, 1, 1

    settle(args.device)
    name, case = next(iter(cases(args.tiny).items()))
    images = 40 if args.tiny else 500
    steps = {way: bare(case, way, args.device, images).seconds for way in METHODS}
    release(args.device)
    ideal = args.repeats * args.steps * sum(steps.values())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")  # of the workers too
        data = photographs(Path(folder) / "photos", images, 20 if args.tiny else 100)
        base = settings(case, data, args.device, steps=args.steps, log="none")
        variants = tuple(Variant(method, {"method": method}) for method in METHODS.values())
        grid = Grid(base, variants, repeats=args.repeats)
        start = time.perf_counter()
        comparison = compare(grid, Path(folder) / "grid", workers=args.workers, quiet=True)
        seconds = time.perf_counter() - start
        comparison.check()
        own = sum(record.cost["seconds"] for record in comparison.records)

    outcome = Measured.of(
        "grid",
        ["network", "runs", "steps a run", "compare s", "sum of bare steps s", "ratio", "steps by the runs' clocks s"],
        "`stochnorm compare` from its call to its records, against the steps of all runs, bare and in a CUDA graph. "
        "The runs' own clocks run at the same time where runs share the GPU.",
    )
    row = [f"{name}, batch {case.batch_size}, {case.image_size} px", f"{2 * args.repeats}", f"{args.steps}"]
    outcome.rows.append([*row, f"{seconds:.1f}", f"{ideal:.1f}", f"{seconds / ideal:.2f}", f"{own:.1f}"])
    outcome.reach("time of a grid to the sum of its runs' steps", seconds / ideal)
    outcome.write(args.out)


if __name__ == "__main__":
    main()
