"""Measure the growth of time and memory with images, classes, pixels, channels, workers and runs in a report.

    python benchmarks/scaling.py                              # 2 minutes
    python benchmarks/scaling.py --axes images --most 1000000
    python benchmarks/scaling.py --axes report

Each point is a fresh process, so that its memory is its own: the most anonymous memory that it and its workers add
(pages of mapped files are the system's to take back). The exponents are slopes in log-log through the larger half of
the points: 1 is proportional, 0 is flat.

- images: ``stochnorm finetune`` with a small random network and two steps: listing, splitting, decoding, training,
  validation. The files are tiny, and many names of a few contents.
- classes: the same with two images a class, so both grow; no test split.
- pixels: four training steps of eight images of the small network.
- channels: forward and backward of the layer, 20 times, on 16 maps of 14 x 14.
- workers: ``finetune`` with 320 images and that many processes that read them.
- report: ``stochnorm report`` on records of so many runs, five methods with five repetitions a case.
"""

from __future__ import annotations

import os
import random
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from growth import Series, plot_growth
from images import write_images
from layer import forward_backward
from measure import Goal, Outcome, arguments, at_most, cost, in_child
from stochnorm.nn import StochNorm2d
from stochnorm.nn.cpu.memory import keep_freed_memory
from stochnorm.report import report
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.records import Record, write_records
from stochnorm.training.finetune import finetune
from training_step import training

SMALL = "small/resnet50"


def job(folder: Path, workers: int = 0) -> None:
    """Two steps on the images of a folder, with caches that are empty."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    settings = {"backbone": SMALL, "weights": "random", "steps": 2, "val_fraction": 0.01, "test_fraction": 0.0}
    config = FinetuneConfig(str(folder / "photos"), **settings, workers=workers, log="none", out=str(folder / "run"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores
        finetune(config, quiet=True)


def of_images(count: int, folder: Path) -> Callable[[], None]:
    return _on_images(count, 10, folder)


def of_classes(count: int, folder: Path) -> Callable[[], None]:
    return _on_images(max(2 * count, 64), count, folder)


def of_workers(count: int, folder: Path) -> Callable[[], None]:
    return _on_images(320, 10, folder, count)


def _on_images(count: int, classes: int, folder: Path, workers: int = 0) -> Callable[[], None]:
    write_images(folder / "photos", count, classes, size=(40, 40), distinct=16)
    return lambda: job(folder, workers)


def of_pixels(pixels: int, folder: Path) -> Callable[[], None]:
    trained = training(SMALL, "stochnorm", batch_size=8, image_size=round(pixels**0.5))

    def steps() -> None:
        for _ in range(4):
            trained.step()

    return steps


def of_channels(channels: int, folder: Path) -> Callable[[], None]:
    keep_freed_memory()  # as a job does
    layer, x = StochNorm2d(channels), torch.randn(16, channels, 14, 14, requires_grad=True)
    grad = torch.randn_like(x)

    def passes() -> None:
        for _ in range(20):
            forward_backward(layer, x, grad)

    return passes


def of_runs(count: int, folder: Path) -> Callable[[], None]:
    write_records(folder / "records.jsonl", [_record(number) for number in range(count)])
    return lambda: _write_report(folder)


def _write_report(folder: Path) -> None:
    report([folder / "records.jsonl"], folder / "report.html")


def _record(number: int) -> Record:
    """Axes of a grid whose last axis is the data set."""
    case, place = divmod(number, 25)
    repeat, method = divmod(place, 5)
    name = ("vanilla", "stochnorm", "l2sp", "bss", "stochnorm+bss")[method]
    value = random.Random(number).gauss(60, 3)  # noqa: S311  # no two alike
    images = {"train": 400, "validation": 100, "test": 500}
    metrics = {"images": 500, "top1": value, "mean_per_class": value, "loss": 1.5, "ece": 5.0}
    return Record(
        run=f"runs/{number}",
        variant=name,
        data=f"data-{case // 4}",
        backbone="resnet50",
        rate=(15.0, 30.0, 50.0, 100.0)[case % 4],
        data_seed=repeat,
        seed=repeat,
        score="top1",
        classes=100,
        images=images,
        validation=metrics,
        test=metrics | {"top1_interval": [value - 2, value + 2]},
        step=300,
        cost={"seconds": 60.0 + method, "images_per_second": 100.0, "peak_memory_gigabytes": 2.0},
        settings={"method": name},
        environment={"torch": "2"},
    )


class Axis(NamedTuple):
    name: str
    what: str
    """The measured work."""
    prepare: Callable[[int, Path], Callable[[], None]]
    """Function that prepares a size, unmeasured, and returns the work to measure."""
    sizes: tuple[int, ...]


AXES = {
    "images": Axis("images", "a job of two steps", of_images, (100, 300, 1000, 3000, 10_000, 30_000, 100_000)),
    "classes": Axis("classes", "a job of two steps", of_classes, (2, 10, 100, 1000, 3000, 10_000)),
    "pixels": Axis("pixels an image", "four training steps", of_pixels, (32**2, 64**2, 128**2, 256**2, 512**2)),
    "channels": Axis("channels", "20 passes of the layer", of_channels, (16, 64, 256, 1024, 4096)),
    "workers": Axis("workers", "a job of two steps", of_workers, (1, 2, 4, 8)),
    "report": Axis("runs", "writing the report", of_runs, (25, 100, 1000, 3000, 10_000)),
}


class Point(NamedTuple):
    seconds: float
    grown: float
    peak: float


def point(name: str, size: int, folder: Path) -> Point:
    """Measured in this process."""
    measured = cost(AXES[name].prepare(size, folder))
    return Point(measured.seconds, measured.grown, measured.peak)


def goals_of(name: str, series: Series, points: list[Point]) -> list[Goal]:
    goals = [at_most(1.1, f"larger exponent of time and memory over {series.name}", max(series.exponents))]
    if name == "images":
        what = f"peak memory of the job with {series.sizes[-1]:,.0f} images to {series.sizes[0]:,.0f}"
        goals.append(at_most(1.2, what, points[-1].peak / points[0].peak))
    if name == "report":
        goals.append(at_most(30, f"a report of {series.sizes[-1]:,.0f} runs", points[-1].seconds, " s"))
    return goals


def main() -> None:
    parser = arguments(__doc__, "scaling")
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--most", type=int, default=100_000, help="images and classes; a million takes minutes")
    args = parser.parse_args()

    outcome = Outcome(
        "Scaling",
        ["axis", "what", "sizes", "seconds", "exponent", "added GB", "exponent"],
        "Each point a fresh process; exponents are slopes in log-log through the larger half of the points.",
    )
    all_series = []
    for name in args.axes:
        axis, points = AXES[name], []
        sizes = [size for size in axis.sizes if name not in ("images", "classes") or size <= args.most]
        if name == "images" and args.most > sizes[-1]:
            sizes.append(args.most)
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                points.append(in_child(point, name, size, Path(folder)))
        series = Series(axis.name, axis.what, sizes, [p.seconds for p in points], [p.grown for p in points])
        all_series.append(series)
        time, memory = (f"{value:.2f}" for value in series.exponents)
        numbers = [f"{p.seconds:.3g}" for p in points], [f"{p.grown:.3f}" for p in points]
        listed = [", ".join(values) for values in ([f"{size:,}" for size in sizes], *numbers)]
        outcome.rows.append([axis.name, axis.what, *listed[:2], time, listed[2], memory])
        outcome.goals += goals_of(name, series, points)
    figure = args.out.with_suffix(".png")
    outcome.figures.append(figure.name)
    outcome.write(args.out)
    plot_growth(all_series, figure)


if __name__ == "__main__":
    main()
