"""Validation and ten-crop evaluation on a GPU, against the bare forward pass in a CUDA graph.

    python benchmarks/gpu_evaluation.py                       # two networks: half a minute
    python benchmarks/gpu_evaluation.py --device cpu --tiny

*validation* and *ten crops* are `evaluate_split`, as a job calls it: images that were decoded before, crops, forward
passes, logits on the host, metrics. Each call counts whole, with all that it prepares. The bare forward pass runs on
256 crops at a time, which lie on the device; ten crops of an image are ten of them. Both compute in bfloat16 autocast.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gpu_bare import Case, bare_forward, cases, network
from gpu_timing import Measured, captured, options, parse, release, settle, take_turns
from images import write_images
from measure import side_by_side
from stochnorm.data import ImageStore, Split, read_source
from stochnorm.evaluation.logits import evaluate_split
from stochnorm.runs.hardware import launch

AT_ONCE = 256


def split_of(folder: Path, classifier: Any, count: int) -> Split:
    """Return generated images, in memory."""
    data = write_images(folder / "photos", count, 8, size=(500, 500), vary=0.512, distinct=min(count, 64))
    source = read_source(data)
    rows = [row._replace(split="val") for row in source.rows]
    store = ImageStore(source.root, rows, classifier.preprocessing, cache="memory")
    return Split.of(store, "val", source.classes)


def first(split: Split, count: int) -> Split:
    """Return the first images of a split."""
    return Split(split.store, split.indices[:count], split.targets[:count])


def measure(name: str, case: Case, outcome: Measured, args: Any) -> None:
    """Add a network's rows."""
    device, count = args.device, 16 if args.tiny else args.images
    classifier = network(case, "StochNorm", device)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        split = split_of(Path(folder), classifier, count)
        few = first(split, max(count // 8, 4))
        fabric = launch(device, "bf16", classifier.model)
        at_once = 4 if args.tiny else AT_ONCE
        shape = (at_once, 3, case.image_size, case.image_size)
        crops = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        forward = captured(bare_forward(classifier, crops, device), device)
        bare = take_turns({"bare": forward}, device, rounds=3 if args.tiny else 15)["bare"].median / at_once
        batch_size = case.batch_size
        whole, tens = side_by_side(
            [
                lambda: evaluate_split(classifier, split, fabric, batch_size=batch_size),
                lambda: evaluate_split(classifier, few, fabric, batch_size=batch_size, ten_crop=True),
            ],
            2 if args.tiny else 5,
            device=device,
        )
    for what, images, timing, least in (
        ("validation", len(split), whole, bare),
        ("ten crops", len(few), tens, 10 * bare),
    ):
        rate, ratio = images / timing.median, least * images / timing.median
        row = [name, what, f"{images}", f"{rate:.0f}", timing.spread(1e3), f"{1 / least:.0f}", f"{ratio:.2f}"]
        outcome.rows.append(row)
        outcome.reach(f"images/s of {what} to the bare forward pass's in a CUDA graph, {name}", ratio)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, "evaluation", 20)
    parser.add_argument("--images", type=int, default=1024, help="of the validation; an eighth of them for ten crops")
    args = parse(parser, arguments)
    outcome = Measured.of(
        "evaluation",
        ["network", "what", "images", "images/s", "quartiles ms", "bare images/s", "ratio"],
        "`evaluate_split`, as a job calls it, with images that were decoded before, against the bare forward pass in a "
        "CUDA graph, 256 crops at a time; bfloat16, 224 px.",
    )
    settle(args.device)
    for name, case in cases(args.tiny).items():
        with outcome.part(name):
            measure(name, case, outcome, args)
        outcome.save(args.out)  # so that what follows cannot cost it
        release(args.device)
    outcome.write(args.out)


if __name__ == "__main__":
    main()
