"""``stochnorm compare``: a grid of runs against the time that its runs take by themselves.

    python benchmarks/grid.py                            # twice as many runs as cores: 2 minutes
    python benchmarks/grid.py --workers 4 --steps 300

The ideal: as many processes as the grid has workers, with its threads each and all imports done, each doing two runs of
the grid one after the other by ``finetune`` itself, all at once; the time until the last is done. So it has the runs'
whole cost, with the memory bandwidth shared, and nothing of the comparison's: starting and importing the workers,
handing out, watching, collecting. Both begin without cached images. In short runs the imports weigh the most; real ones
are longer.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from images import write_images
from measure import Outcome, arguments, at_most, in_child, processes
from stochnorm.comparison.compare import compare
from stochnorm.comparison.executors.job import cores
from stochnorm.comparison.grid import Grid, Variant
from stochnorm.runs.config import FinetuneConfig
from stochnorm.training.finetune import finetune

VARIANTS = (Variant("BatchNorm", {"method": "vanilla"}), Variant("StochNorm", {"method": "stochnorm"}))


def one_after_another(configs: list[FinetuneConfig], threads: int, cache: str, begin: float) -> tuple[float, float]:
    """Runs, all processes from the same moment on; when they began and ended."""
    os.environ["XDG_CACHE_HOME"] = cache
    torch.set_num_threads(threads)
    time.sleep(max(begin - time.time(), 0))
    start = time.time()
    for config in configs:
        finetune(config, quiet=True)
    return start, time.time()


def ideal(grid: Grid, workers: int, threads: int, folder: Path) -> float:
    """Seconds."""
    configs = [replace(run.config, out=str(folder / f"{i}"), report=False) for i, run in enumerate(grid.runs())]
    shares = [configs[i::workers] for i in range(workers)]
    begin = time.time() + 3  # the processes are up by then
    with processes(workers) as pool:
        futures = [pool.submit(one_after_another, share, threads, str(folder / "cache"), begin) for share in shares]
        spans = [future.result() for future in futures]
    return max(end for _, end in spans) - min(start for start, _ in spans)


def compared(grid: Grid, workers: int, threads: int, folder: Path) -> float:
    """Seconds."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # of the workers too
    start = time.perf_counter()
    comparison = compare(grid, folder / "grid", workers=workers, threads=threads, quiet=True)
    seconds = time.perf_counter() - start
    if comparison.failures:
        raise SystemExit(comparison.failures[0].reason)
    return seconds


def main() -> None:
    parser = arguments(__doc__, "grid")
    parser.add_argument("--data", default="", help="real images, as for stochnorm compare; none: 400 generated ones")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--image-size", type=int, default=96)
    args = parser.parse_args()

    threads = max(cores() // args.workers, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = args.data or str(in_child(write_images, folder / "photos", 400, 10))
        base = FinetuneConfig(data, steps=args.steps, image_size=args.image_size, log="none")
        grid = Grid(base, VARIANTS, repeats=args.workers)  # of two variants
        (folder / "alone").mkdir()
        (folder / "together").mkdir()
        alone = ideal(grid, args.workers, threads, folder / "alone")
        seconds = compared(grid, args.workers, threads, folder / "together")
    outcome = Outcome(
        "A grid of runs",
        ["runs", "workers", "threads each", "steps a run", "compare s", "ideal s", "ratio"],
        "`stochnorm compare` against as many processes that do the same runs by `finetune`, imports not counted.",
    )
    row = [f"{2 * args.workers}", f"{args.workers}", f"{threads}", f"{args.steps}"]
    outcome.rows.append([*row, f"{seconds:.1f}", f"{alone:.1f}", f"{seconds / alone:.2f}"])
    outcome.goals.append(at_most(1.15, f"time of {2 * args.workers} runs on {args.workers} workers", seconds / alone))
    outcome.write(args.out)


if __name__ == "__main__":
    main()
