"""BatchNorm and StochNorm side by side on real images, and what came out, whatever it is."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from stochnorm.config import FinetuneConfig
from stochnorm.display import Display
from stochnorm.job import finetune
from stochnorm.plots import BLUE, ORANGE, save_figure, tidy
from stochnorm.runs import Run

__all__ = ["demo"]

_METHODS = {"vanilla": "BatchNorm", "stochnorm": "StochNorm"}


def demo(
    *,
    data: str = "elpv",
    rate: float = 10.0,
    steps: int = 100,
    seeds: int = 2,
    image_size: int = 128,
    out: Path = Path("runs/demo"),
) -> dict[str, list[float]]:
    """Fine-tune with both normalizations on the same images, in the same order, and compare them on the test split.

    Args:
        data: As for :class:`FinetuneConfig`.
        rate: Percentage of the training images of each class.
        steps: Training steps of each run.
        seeds: Runs per method, which differ in the new head, order, augmentation and masks.
        image_size: Side of the network's input, pixels.
        out: Directory of the runs, ``demo.png`` and ``demo.svg``. Finished runs are not repeated, interrupted ones
            go on.

    Returns:
        Test top-1 in percent, by method, a value per seed.

    Raises:
        ValueError: There is no readable test image; or what :func:`finetune` raises.
    """
    display = Display()
    records: dict[str, list[dict[str, Any]]] = {method: [] for method in _METHODS}
    for seed in range(seeds):
        for method, name in _METHODS.items():
            display.note(f"\n{name}, seed {seed}")
            config = FinetuneConfig(
                data,
                method=method,
                rate=rate,
                steps=steps,
                image_size=image_size,
                seed=seed,
                out=str(out / f"{method}-{seed}"),
                resume=(out / f"{method}-{seed}" / "config.json").is_file(),
                report=False,
            )
            record = finetune(config).record
            if record["test"] is None:
                raise ValueError(f"{data}: no readable test image, so nothing to compare the methods on; add some")
            records[method].append(record)
    top1 = {method: [record["test"]["top1"] for record in runs] for method, runs in records.items()}
    _show(display, top1, records, out)
    return top1


def _show(display: Display, top1: dict[str, list[float]], records: dict[str, list[dict[str, Any]]], out: Path) -> None:
    first = records["vanilla"][0]
    images, config = first["images"], first["config"]
    title = (
        f"{config['data']}: {images['train']} training images of {len(first['classes'])} classes, "
        f"tested on {images['test']}"
    )
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("method")
    for column in ("test top-1 %, mean", "each seed", "mean per class %", "images/s"):
        table.add_column(column, justify="right")
    for method, name in _METHODS.items():
        runs = records[method]
        table.add_row(
            name,
            f"{statistics.mean(top1[method]):.1f}",
            ", ".join(f"{value:.1f}" for value in top1[method]),
            f"{statistics.mean(r['test']['mean_per_class'] for r in runs):.1f}",
            f"{statistics.mean(r['cost']['images_per_second'] for r in runs):.0f}",
        )
    display.console.print(table)
    display.note(_verdict(top1, records))
    _plot(records, title, out / "demo")
    display.note(f"picture: {out / 'demo.png'}")


def _verdict(top1: dict[str, list[float]], records: dict[str, list[dict[str, Any]]]) -> str:
    """The difference and how far it can be trusted, in words."""
    gains = [s - b for s, b in zip(top1["stochnorm"], top1["vanilla"], strict=True)]
    low, high = records["vanilla"][0]["test"]["top1_interval"]
    text = (
        f"StochNorm - BatchNorm: {statistics.mean(gains):+.1f} points on average "
        f"(by seed {', '.join(f'{gain:+.1f}' for gain in gains)}). "
        f"One run's accuracy is known to about ±{(high - low) / 2:.1f} points from this many test images"
    )
    if len({gain > 0 for gain in gains}) > 1 or abs(statistics.mean(gains)) < (high - low) / 2:
        return f"{text}: this demo is too small to tell the two apart."
    return f"{text}; {len(gains)} seeds on one data set are a hint, not a result."


def _plot(records: dict[str, list[dict[str, Any]]], title: str, path: Path) -> None:
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    curves, result = figure.subplots(1, 2, width_ratios=[2, 1])
    for x, (method, name) in enumerate(_METHODS.items()):
        color = (BLUE, ORANGE)[x]
        for i, record in enumerate(records[method]):
            history = Run(Path(record["config"]["out"])).read_metrics()
            label = name if i == 0 else None
            curves.plot([r["step"] for r in history], [r["val_loss"] for r in history], color=color, label=label)
        values = [record["test"]["top1"] for record in records[method]]
        result.plot([x] * len(values), values, "o", color=color, alpha=0.6)
        result.hlines(statistics.mean(values), x - 0.25, x + 0.25, color=color)
        result.annotate(f"{statistics.mean(values):.1f}", (x + 0.28, statistics.mean(values)), va="center", color=color)
    curves.set_xlabel("step")
    curves.set_title("validation loss", loc="left", fontsize=10)
    curves.legend(frameon=False, fontsize=9)
    result.set_xticks(range(len(_METHODS)), list(_METHODS.values()))
    result.set_xlim(-0.5, len(_METHODS) - 0.2)
    result.set_title("test top-1, % (a dot a seed)", loc="left", fontsize=10)
    for axes in (curves, result):
        tidy(axes)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    save_figure(figure, path)
