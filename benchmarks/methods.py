"""A training step of each method on each backbone, its time and peak memory against plain fine-tuning.

    python benchmarks/methods.py                           # all, about half an hour on two cores
    python benchmarks/methods.py --backbones torchvision/resnet50 --methods vanilla stochnorm --rounds 5

Time: in one process the method and vanilla take steps in turns, in random order; the ratio is of their medians. Memory:
the peak of a process that takes two steps of the method alone, Python and PyTorch included (which pulls ratios towards
1). The JSON file is of one batch size, number of rounds and machine; rows that it holds are not measured again. DELTA
with uniform attention: the other kind costs the same per step.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from stochnorm.config import DELTAConfig, FinetuneConfig
from stochnorm.data import Split
from stochnorm.files import write_text
from stochnorm.hardware import launch, precision_of
from stochnorm.models import build_classifier
from stochnorm.objective import Objective
from stochnorm.preparation import prepare
from stochnorm.tasks import SingleLabel
from stochnorm.train import weight_decay

BACKBONES = ["tf_efficientnet_lite0", "torchvision/resnet50", "torchvision/inception_v3", "torchvision/vgg16_bn"]
METHODS = [
    "vanilla", "stochnorm", "bin", "frozen", "l2sp", "delta", "bss",
    "stochnorm+l2sp", "stochnorm+delta", "stochnorm+bss", "stochnorm+delta+bss",
]  # fmt: skip


def training_step(backbone: str, method: str, batch_size: int) -> Callable[[], None]:
    """A function that takes one step as the main job does, on random images of the backbone's own size."""
    fabric = launch()
    config = FinetuneConfig("-", method=method, backbone=backbone, delta=DELTAConfig(attention="uniform"))
    weights = "auto" if backbone == BACKBONES[0] else "random"
    classifier = build_classifier(backbone, weights, tuple(map(str, range(100))))
    no_images: Any = None  # only initial statistics and channel attention look at them
    regularizers = prepare(config, classifier, Split(no_images, [], torch.empty(0)), fabric)
    objective = Objective(classifier, SingleLabel(classifier.classes), regularizers, fabric.autocast)
    optimizer = torch.optim.SGD(
        classifier.parameter_groups(1e-4), momentum=0.9, nesterov=True, weight_decay=weight_decay(config)
    )
    model, optimizer = fabric.setup(classifier.model, optimizer)
    size = classifier.preprocessing.image_size
    images = torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8)
    targets = torch.arange(batch_size) % len(classifier.classes)

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        fabric.backward(objective(model, classifier.preprocessing.normalize(images), targets).loss)
        optimizer.step()

    return step


def seconds(backbone: str, method: str, batch_size: int, rounds: int) -> tuple[float, float]:
    """Median seconds of a step of vanilla and of the method."""
    steps = [training_step(backbone, name, batch_size) for name in ("vanilla", method)]
    times: list[list[float]] = [[], []]
    for _ in range(rounds + 1):
        for i in random.sample((0, 1), 2):
            start = time.perf_counter()
            steps[i]()
            times[i].append(time.perf_counter() - start)
    vanilla, ours = (statistics.median(record[1:]) for record in times)
    return vanilla, ours


def child(backbone: str, method: str, batch_size: int, rounds: int) -> dict[str, float]:
    """What one process measures: seconds with rounds, else memory."""
    if rounds:
        vanilla, ours = seconds(backbone, method, batch_size, rounds)
        return {"vanilla_seconds": vanilla, "seconds": ours}
    step = training_step(backbone, method, batch_size)
    step()
    step()
    return {"peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def measure(backbone: str, method: str, batch_size: int, rounds: int) -> dict[str, float]:
    row: dict[str, float] = {}
    for count in (rounds, 0):
        arguments = [backbone, method, str(batch_size), str(count)]
        done = subprocess.run([sys.executable, __file__, "--child", *arguments], capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or [f"killed, status {done.returncode}; memory?"]
            sys.exit(f"{backbone}, {method}: {reason[0]}")
        row |= json.loads(done.stdout.splitlines()[-1])
    return row


def conditions(batch_size: int, rounds: int) -> dict[str, Any]:
    """What all rows of a file were measured under."""
    fabric = launch()
    return {
        "batch_size": batch_size,
        "rounds": rounds,
        "device": fabric.device.type,
        "precision": precision_of(fabric),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def show(content: dict[str, Any], backbone: str, methods: list[str]) -> None:
    rows, about = content["rows"], content["conditions"]
    table = Table(
        title=f"{backbone}, batch {about['batch_size']}, {about['rounds']} rounds, {about['device']}, "
        f"{about['precision']}, {about['threads']} threads, torch {about['torch']}"
    )
    for name in ("method", "step s", "to vanilla", "peak GB", "to vanilla"):
        table.add_column(name, justify="left" if name == "method" else "right")
    base = rows[f"{backbone} vanilla"]
    for method in methods:
        row = rows[f"{backbone} {method}"]
        ratios = row["seconds"] / row["vanilla_seconds"], row["peak_gigabytes"] / base["peak_gigabytes"]
        table.add_row(
            method, f"{row['seconds']:.2f}", f"{ratios[0]:.2f}", f"{row['peak_gigabytes']:.2f}", f"{ratios[1]:.2f}"
        )
    Console(width=110).print(table)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        backbone, method, batch_size, rounds = sys.argv[2:]
        print(json.dumps(child(backbone, method, int(batch_size), int(rounds))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("methods.json"))
    args = parser.parse_args()
    about = conditions(args.batch_size, args.rounds)
    content: dict[str, Any] = {"conditions": about, "rows": {}}
    if args.out.is_file():
        content = json.loads(args.out.read_text())
        if content.get("conditions") != about:
            sys.exit(f"{args.out} was measured under {content.get('conditions')}, not {about}; give another --out")
    rows: dict[str, dict[str, float]] = content["rows"]
    methods = ["vanilla", *(method for method in args.methods if method != "vanilla")]
    for backbone in args.backbones:
        for method in methods:
            if f"{backbone} {method}" not in rows:
                rows[f"{backbone} {method}"] = measure(backbone, method, args.batch_size, args.rounds)
                write_text(args.out, json.dumps(content, indent=2) + "\n")
        show(content, backbone, methods)


if __name__ == "__main__":
    main()
