"""The small scale: every cell of an experiment with tiny networks, few images and two steps. It is no result."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from stochnorm.data import DATASETS, Row, findings, format_manifest, read_source
from stochnorm.data.images.decoding.decode import decode
from stochnorm.files import atomic_path, write_text
from stochnorm.paper.experiment import INCEPTION_V3, PAPER, RESNET50, VGG16_BN
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.scores import Score

__all__ = ["BACKBONES", "NOTE", "SMALL", "images_of", "small_set"]

NOTE = "small scale: no result"
"""Label of everything that a run at small scale writes."""

BACKBONES = {RESNET50: "small/resnet50", VGG16_BN: "small/vgg16_bn", INCEPTION_V3: "small/inception_v3"}

SMALL: FinetuneConfig = replace(
    PAPER,
    weights="random",
    steps=2,
    batch_size=8,
    delta=replace(PAPER.delta, alpha=1e-4, attention_images=32),  # the feature maps of random weights are larger
    device="cpu",
    workers=0,
)
"""The paper's settings except these."""

_CLASSES, _FINDINGS, _SIDE = 8, 3, 48
_IMAGES = {"train": 14, "val": 7, "test": 2}  # images per class; 15 % of 14 are 3, one of them for validation
_PATIENTS = {"train": 240, "test": 24}  # 5 % of 240 are 12
_IMAGES_A_PATIENT = 2


def small_set(name: str, score: Score, folder: Path, official: str = "") -> Path:
    """Write a small image set in the format of an official one, unless it is there already.

    Args:
        name: Name of the data set, as in `stochnorm ls datasets`.
        score: Score of the experiment; it decides between one class and several findings per image.
        folder: Folder for the images and their list.
        official: Folder of the official data set, to copy a few of its images; empty: generate images, one grating
            per class in noise.

    Returns:
        The list, a CSV file for `stochnorm finetune`.

    Raises:
        ValueError: The lists of the official data set cannot be read.
    """
    path = folder / f"{f'{Path(official).name}-small' if official else f'{name}-generated'}.csv"
    if path.is_file():
        return path
    images = folder / path.stem
    images.mkdir(parents=True, exist_ok=True)
    if official:
        source = read_source(official)
        rows = [row._replace(path=f"{source.root}/{row.path}") for row in _with_test(source.rows)]
        found: Iterator[tuple[Row, Image.Image]] = (
            (row, _copy(Path(row.path))) for row in (_patients if score.multi_label else _classes)(rows)
        )
    else:
        val = "val" in DATASETS[name].counts
        found = _generated_patients() if score.multi_label else _generated_classes(val=val)
    listed = []
    for number, (row, image) in enumerate(found):
        listed.append(row._replace(path=f"{images.name}/{number:04d}.png"))
        with atomic_path(folder / listed[-1].path) as temporary:  # another process may read it already
            image.save(temporary)
    write_text(path, format_manifest(listed, multi_label=score.multi_label))
    return path


def images_of(name: str) -> dict[str, int]:
    """Return the number of generated images by split, those for validation among the ones for training."""
    several = "patients" in DATASETS[name].counts
    return {
        split: _PATIENTS[split] + _PATIENTS[split] // 4 if several else _CLASSES * _IMAGES[split]
        for split in ("train", "test")
    }


def _with_test(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the source's split, or with a fifth of the patients (or images) as test split."""
    if any(row.split == "test" for row in rows):
        return [row._replace(split=row.split or "train") for row in rows]
    units = list(dict.fromkeys(row.group or row.path for row in rows))
    test = set(units[::5])
    return [row._replace(split="test" if (row.group or row.path) in test else "train") for row in rows]


def _classes(rows: Sequence[Row]) -> list[Row]:
    """Return some images of the first classes."""
    names = list(dict.fromkeys(row.label for row in rows))[:_CLASSES]
    taken: Counter[tuple[str, str]] = Counter()
    halves = 2 if any(row.split == "val" for row in rows) else 1
    most = {**_IMAGES, "train": _IMAGES["train"] // halves}
    chosen = []
    for row in rows:
        if row.label in names and taken[row.label, row.split] < most[row.split]:
            taken[row.label, row.split] += 1
            chosen.append(row)
    return chosen


def _patients(rows: Sequence[Row]) -> list[Row]:
    """Return some images of some patients, with the commonest findings, balanced over the findings and none."""
    counts = Counter(name for row in rows for name in findings(row.label))
    common = {name for name, _ in counts.most_common(_FINDINGS)}
    rows = [row._replace(label="|".join(name for name in findings(row.label) if name in common)) for row in rows]
    kept: set[str] = set()
    for split, most in _PATIENTS.items():
        kinds: dict[str, dict[str, None]] = defaultdict(dict)  # patients by their first finding, in order
        for row in rows:
            if row.split == split:
                kinds[row.label.partition("|")[0]][row.group] = None
        turns = (patient for turn in zip_longest(*kinds.values()) for patient in turn if patient)
        kept |= set(islice(dict.fromkeys(turns), most))
    taken: Counter[str] = Counter()
    chosen = []
    for row in rows:
        if row.group in kept and taken[row.group] < _IMAGES_A_PATIENT:
            taken[row.group] += 1
            chosen.append(row)
    return chosen


def _copy(path: Path) -> Image.Image:
    return decode(path)[0].resize((_SIDE, _SIDE))


def _generated_classes(*, val: bool) -> Iterator[tuple[Row, Image.Image]]:
    rng = np.random.default_rng(0)
    for kind in range(_CLASSES):
        for number in range(_IMAGES["train"] + _IMAGES["test"]):
            split = "test" if number >= _IMAGES["train"] else "val" if val and number % 2 else "train"
            yield Row("", f"class {kind + 1}", split), _gratings([kind], rng)


def _generated_patients() -> Iterator[tuple[Row, Image.Image]]:
    rng = np.random.default_rng(0)
    for split, patients in _PATIENTS.items():
        for patient in range(patients):
            for _ in range(1 + (patient % 4 == 0)):
                kinds = [kind for kind in range(_FINDINGS) if rng.random() < 0.3]
                label = "|".join(f"finding {kind + 1}" for kind in kinds)
                yield Row("", label, split, f"{split} patient {patient + 1}"), _gratings(kinds, rng)


def _gratings(kinds: Sequence[int], rng: np.random.Generator) -> Image.Image:
    """Return noise with a grating for each kind, which differs in direction, frequency and color."""
    y, x = np.mgrid[:_SIDE, :_SIDE] / _SIDE
    pixels = rng.normal(128, 20, (_SIDE, _SIDE, 3))
    for kind in kinds:
        angle = np.pi * kind / _CLASSES
        wave = np.sin(2 * np.pi * ((3 + kind) * (x * np.cos(angle) + y * np.sin(angle)) + rng.random()))
        pixels += 60 * wave[..., None] * np.cos(kind + np.array([0, 2, 4]))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
