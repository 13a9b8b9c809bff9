"""The images of a run that an exported file is checked on, and those that int8 is calibrated on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from stochnorm.data import ImageStore, Preprocessing, Row, encode_labels, read_source
from stochnorm.data.images.decoding.decode import decode
from stochnorm.data.images.preprocessing import stack
from stochnorm.data.manifest import list_manifest
from stochnorm.evaluation.logits import predict_logits
from stochnorm.models import Classifier
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.runs.hardware import launch
from stochnorm.runs.predictions import read_predictions
from stochnorm.text import some

__all__ = ["Images", "read_images_of"]

_BATCH = 32


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one split of a run."""

    split: str
    store: ImageStore
    targets: Tensor
    """As [stochnorm.data.encode_labels][] returns them."""
    preprocessing: Preprocessing

    @property
    def files(self) -> list[Path]:
        """The files."""
        return [self.store.root / row.path for row in self.store.rows]

    def inputs(self) -> Tensor:
        """Return the network's inputs: float32 (n, 3, input_size, input_size), normalized."""
        squares = torch.stack([self.store[i].movedim(0, -1) for i in range(len(self.store))]).movedim(-1, 1)
        return self.preprocessing.normalize(self.preprocessing.center_crop(squares)).contiguous()

    def inputs_of(self, index: int) -> Tensor:
        """Return the network's input of one image: (1, 3, input_size, input_size)."""
        square = self.preprocessing.center_crop(self.store[index][None])
        return self.preprocessing.normalize(square).contiguous()

    def raw(self, index: int) -> Tensor:
        """Return an image as other programs decode it, at its full size: (1, h, w, 3), uint8."""
        image, _ = decode(self.files[index])
        return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, image.height, image.width, 3)

    def logits(self, classifier: Classifier) -> Tensor:
        """Compute the logits of the run's model as `stochnorm evaluate` does, in float32 on the CPU."""
        squares = [self.store[i] for i in range(len(self.store))]
        batches = (stack(squares[first : first + _BATCH]) for first in range(0, len(squares), _BATCH))
        fabric: Fabric = launch("cpu", "32")
        return predict_logits(classifier.model, batches, classifier.preprocessing, fabric)

    def recorded(self, run: Run, classifier: Classifier) -> list[str] | None:
        """Return the classes that the run wrote down for these images; None if it wrote none."""
        if self.split != "test" or not run.predictions.is_file():
            return None
        known = read_predictions(run.predictions, multi_label=classifier.multi_label)
        of_path = dict(zip(known.paths, known.predicted, strict=True))
        if any(row.path not in of_path for row in self.store.rows):
            return None
        return [of_path[row.path] for row in self.store.rows]


def read_images_of(run: Run, classifier: Classifier, splits: tuple[str, ...], most: int) -> Images:
    """Read the images of the first of some splits that has any, at most so many, evenly spaced.

    Raises:
        FileNotFoundError: The images no longer exist.
        ValueError: It is not a run directory, or it has no images of these splits.
    """
    if not run.config.is_file():
        raise ValueError(
            f"{run.path}: not a run directory, so there are no images to check the file on; give one, or use --no-check"
        )
    data = FinetuneConfig.load(run.config).data
    rows = list_manifest(run.split, exact=True).rows
    for split in splits:
        if names := [row.path for row in rows if row.split == split]:
            break
    else:
        raise ValueError(f"{run.path}: the run has no images of {some(splits)}; use --no-check")
    source = read_source(data)
    there = {row.path: row for row in source.rows}
    if missing := [name for name in names if name not in there]:
        raise FileNotFoundError(
            f"{data}: {len(missing)} of the run's {len(names)} {split} images no longer exist: {some(missing)}; "
            "restore them, or use --no-check"
        )
    chosen: list[Row] = [there[name] for name in names[:: -(-len(names) // most)]]
    store = ImageStore(
        source.root, chosen, classifier.preprocessing, cache="auto", listed=[r.path for r in source.rows]
    )
    labels = [row.label for row in store.rows]
    targets = encode_labels(labels, classifier.classes, multi_label=classifier.multi_label)
    return Images(split, store, targets, classifier.preprocessing)
