"""An epoch that reads its images first, and one that finds them read, against one whose images are in memory.

    python benchmarks/epochs.py                                   # EfficientNet-Lite0, 128 generated photographs
    python benchmarks/epochs.py --data photos/ --backbone torchvision/resnet50 --rounds 5

Training batches and steps are the main job's; no validation. In one process, in turns, in random order; ratios of
medians to epochs of a store that holds all images in memory. "first" opens the store too, which decodes every file:
with an empty cache, or with one that an earlier run filled. The files are in the system's page cache, so disks are not
measured.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Literal

from images import write_images
from measure import Outcome, arguments, at_most, side_by_side
from stochnorm.data import ImageStore, Row, Split, read_source
from training_step import BUNDLED, Training, training

Cache = Literal["disk", "memory", "none"]


class Epochs:
    """Opens stores and trains on them."""

    def __init__(self, trained: Training, root: Path, rows: list[Row], folder: Path) -> None:
        self.trained, self.root, self.rows, self.folder = trained, root, rows, folder
        self.batch_size = len(trained.images)
        self.number = count()

    def open(self, cache: Cache, directory: str = "") -> Split:
        """A store with the caches in a directory of their own, a new one unless it is named."""
        os.environ["XDG_CACHE_HOME"] = str(self.folder / (directory or f"cache-{next(self.number)}"))
        store = ImageStore(self.root, self.rows, self.trained.classifier.preprocessing, cache=cache)
        return Split.of(store, "train", self.trained.classifier.classes)

    def train(self, split: Split) -> None:
        for images, targets in self._batches(split):
            self.trained.on(images, targets)

    def _batches(self, split: Split) -> Iterator[tuple]:
        steps = range(len(split) // self.batch_size)
        yield from split.training_batches(self.batch_size, steps, seed=0)


def main() -> None:
    parser = arguments(__doc__, "epochs")
    parser.add_argument("--data", default="", help="real images, as for stochnorm finetune; none: generated ones")
    parser.add_argument("--backbone", default=BUNDLED)
    parser.add_argument("--images", type=int, default=128, help="at most")
    parser.add_argument("--image-size", type=int, default=0, help="0: the backbone's own")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = read_source(args.data or write_images(folder / "photos", args.images, 8))
        step = max(len(source.rows) // args.images, 1)
        rows = [row._replace(split="train") for row in source.rows[::step]]
        size = {"batch_size": args.batch_size, "image_size": args.image_size}
        trained = training(args.backbone, "stochnorm", **size, classes=source.classes)
        epochs = Epochs(trained, source.root, rows, folder)
        memory, disk, none = (epochs.open(cache) for cache in ("memory", "disk", "none"))
        epochs.open("disk", "filled")
        ways = {
            "all, images in memory": lambda: epochs.train(memory),
            "first, then in memory": lambda: epochs.train(epochs.open("memory")),
            "first, then on disk": lambda: epochs.train(epochs.open("disk")),
            "first, on disk from an earlier run": lambda: epochs.train(epochs.open("disk", "filled")),
            "later, on disk": lambda: epochs.train(disk),
            "later, decoded again (none)": lambda: epochs.train(none),
        }
        timings = dict(zip(ways, side_by_side(list(ways.values()), args.rounds), strict=True))
    base = timings["all, images in memory"]
    outcome = Outcome(
        f"Epochs, {args.backbone}, {len(rows)} images, {trained.classifier.preprocessing.image_size} px",
        ["epoch", "seconds", "quartiles", "to images in memory"],
        "Medians of epochs in turns; a *first* one opens the images, too.",
    )
    for name, timing in timings.items():
        outcome.rows.append([name, f"{timing.median:.2f}", timing.spread(), f"{timing.over(base):.2f}"])
    first, later = (timings[name].over(base) for name in ("first, then on disk", "later, on disk"))
    outcome.goals.append(at_most(1.3, "time of the first epoch to one with images in memory", first))
    outcome.goals.append(at_most(1.02, "time of a later epoch to one with images in memory", later))
    outcome.write(args.out)


if __name__ == "__main__":
    main()
