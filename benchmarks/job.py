"""The whole job, ``stochnorm finetune``, against the loop that one would write without it (plain.py).

    python benchmarks/job.py                                           # generated photographs, two networks: 4 minutes
    python benchmarks/job.py --networks ResNet-50 --precision 32       # of the job; the plain loop has no other
    python benchmarks/job.py --data ../shared/data/grocery --repeats 3
    python benchmarks/job.py --data ../shared/data/grocery --accuracy  # three seeds, test accuracy of both: an hour

Each is a fresh process on the same images, splits, model, batch size, SGD, loss and number of validations; they take
turns. "training" is the time of all steps from the first batch that is asked for, with waiting for images and without
validation; "end to end" is that of the process: imports, reading images, training, validations, test, and what the job
writes (curves, checkpoints, model, report). The job starts without cached images. The plain loop decodes again at each
epoch what the job holds, so longer runs favor the job, and short ones charge it for reading the images.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from images import write_images
from measure import Outcome, arguments, at_least


class Case(NamedTuple):
    backbone: str
    weights: str
    image_size: int
    batch_size: int
    steps: int
    """Without --accuracy."""


CASES = {
    "EfficientNet-Lite0": Case("tf_efficientnet_lite0", "bundled", 128, 32, 32),
    "ResNet-50": Case("torchvision/resnet50", "random", 224, 16, 9),
}


class Run(NamedTuple):
    training: float
    """Seconds."""
    end_to_end: float
    top1: float
    """On the test images, percent."""


def perform(command: Sequence[str], folder: Path) -> tuple[float, str]:
    """Seconds and output of a process whose caches are empty."""
    start = time.perf_counter()
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return seconds, done.stdout


def options(case: Case, steps: int, seed: int) -> list[str]:
    """Return the options of both commands."""
    settings = {
        "backbone": case.backbone,
        "weights": case.weights,
        "image-size": case.image_size,
        "batch-size": case.batch_size,
        "steps": steps,
        "eval-every": -(-steps // 3),
        "seed": seed,
    }
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


def job(data: str, case: Case, steps: int, seed: int, precision: str) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "stochnorm", "finetune", data, "--out", str(out)]
        command += ["--precision", precision]
        seconds, _ = perform([*command, *options(case, steps, seed)], Path(folder))
        result = json.loads((out / "result.json").read_text())
    return Run(result["cost"]["seconds"], seconds, result["test"]["top1"])


def plain(data: str, case: Case, steps: int, seed: int) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).with_name("plain.py")), data]
        seconds, printed = perform([*command, *options(case, steps, seed)], Path(folder))
    result = json.loads(printed.splitlines()[-1])
    return Run(result["seconds"], seconds, result["test_top1"])


def compare(name: str, data: str, args: Namespace, outcome: Outcome) -> None:
    case = CASES[name]
    steps = args.steps or case.steps
    runs: dict[str, list[Run]] = {"job": [], "plain": []}
    for seed in range(args.repeats):
        for way in random.sample(list(runs), 2):
            one = job(data, case, steps, seed, args.precision) if way == "job" else plain(data, case, steps, seed)
            runs[way].append(one)
    images = steps * case.batch_size
    training, whole = ({way: statistics.median(run[column] for run in runs[way]) for way in runs} for column in (0, 1))
    ratios = training["plain"] / training["job"], whole["plain"] / whole["job"]
    row = [f"{name}, batch {case.batch_size}, {case.image_size} px", f"{steps}", f"{args.repeats}"]
    row += [f"{images / training['job']:.1f}", f"{images / training['plain']:.1f}", f"{ratios[0]:.2f}"]
    row += [f"{whole['job']:.1f}", f"{whole['plain']:.1f}", f"{ratios[1]:.2f}"]
    if args.accuracy:
        row += [", ".join(f"{run.top1:.1f}" for run in runs[way]) for way in runs]
    outcome.rows.append(row)
    outcome.goals.append(at_least(2, f"images/s of the job's training to a plain loop's, {name}", ratios[0]))
    outcome.goals.append(at_least(2, f"speed of the job end to end to a plain loop's, {name}", ratios[1]))


def main() -> None:
    parser = arguments(__doc__, "job")
    parser.add_argument("--data", default="", help="real images, as for stochnorm finetune; none: 320 generated ones")
    parser.add_argument("--networks", nargs="+", choices=CASES, default=[])
    parser.add_argument("--repeats", type=int, default=0, help="0: 1, with --accuracy 3")
    parser.add_argument("--steps", type=int, default=0, help="0: fit for 4 minutes, with --accuracy 300")
    parser.add_argument("--precision", default="auto", help="of the job")
    parser.add_argument("--accuracy", action="store_true", help="report the test accuracy of each seed")
    args = parser.parse_args()
    args.repeats = args.repeats or (3 if args.accuracy else 1)
    args.steps = args.steps or (300 if args.accuracy else 0)

    outcome = Outcome(
        "The whole job against a plain loop",
        ["network", "steps", "runs", "job images/s", "plain images/s", "ratio", "job s", "plain s", "ratio"]
        + (["job top-1 %", "plain top-1 %"] if args.accuracy else []),
        "Images a second in training, then seconds of the whole process. *plain*: `benchmarks/plain.py`, float32, "
        "contiguous, decoding at every use with two workers, StochNorm from both branches of BatchNorm.",
    )
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or str(write_images(Path(folder) / "photos", 320, 10))
        # With random weights an accuracy says nothing.
        networks = args.networks or (["EfficientNet-Lite0"] if args.accuracy else list(CASES))
        for name in networks:
            compare(name, data, args, outcome)
    outcome.write(args.out)


if __name__ == "__main__":
    main()
