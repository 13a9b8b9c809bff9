"""Train what people use otherwise on the images and splits of finished runs: a support vector machine, fastai.

    python results/peers.py runs/photos-vanilla-*              # needs scikit-learn; fastai, where it is installed

For each run, with its backbone, weights, image size, and training, validation and test images:

- svm: support vector classification (scikit-learn, RBF kernel) on standardized features of the frozen backbone, its C
  chosen on validation among STRENGTHS, then scored on the test images once;
- fastai: `vision_learner(...).fine_tune(epochs)` with its defaults, on as many images as the run saw.
"""

from __future__ import annotations

import argparse
import csv
from importlib.util import find_spec
from pathlib import Path

from probe import features
from torch import Tensor

from stochnorm import FinetuneConfig, build_classifier
from stochnorm.data import read_source
from stochnorm.runs.directory import Run
from stochnorm.training.images import split_rows

__all__ = ["check_split", "fastai_score", "main", "svm_score"]

STRENGTHS = (0.1, 1.0, 10.0, 100.0)


def check_split(config: FinetuneConfig, run: Run) -> None:
    """Raise ValueError unless the settings give the split that the run had."""
    now = {(row.path, row.split) for row in split_rows(read_source(config.data), config)}
    with run.split.open(encoding="utf-8", newline="") as file:
        then = {(line["path"], line["split"]) for line in csv.DictReader(file)}
    if now != then:
        raise ValueError(f"{run.split}: the data changed since the run; {len(now ^ then)} images are split otherwise")


def svm_score(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Return the test accuracy, in percent, of a support vector machine whose C is the best on validation."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    models = [make_pipeline(StandardScaler(), SVC(C=strength)).fit(*map(_array, train)) for strength in STRENGTHS]
    best = max(models, key=lambda model: model.score(*map(_array, val)))
    return 100 * float(best.score(*map(_array, test)))


def fastai_score(config: FinetuneConfig) -> float:
    """Return the test accuracy, in percent, after fastai's `fine_tune` by its defaults."""
    from fastai.callback.schedule import fine_tune  # noqa: F401  (adds the method to Learner)
    from fastai.data.block import CategoryBlock, DataBlock
    from fastai.data.transforms import ColReader, ColSplitter
    from fastai.learner import Learner
    from fastai.metrics import accuracy
    from fastai.vision.augment import Resize, aug_transforms
    from fastai.vision.data import ImageBlock
    from pandas import DataFrame

    source = read_source(config.data)
    rows = split_rows(source, config)
    lines = [(str(source.root / row.path), row.label, row.split == "val") for row in rows if row.split != "test"]
    table = DataFrame(lines, columns=["path", "label", "is_valid"])
    size = config.image_size or 224
    block = DataBlock(
        (ImageBlock, CategoryBlock(vocab=list(source.classes))),
        splitter=ColSplitter(),
        get_x=ColReader("path"),
        get_y=ColReader("label"),
        item_tfms=Resize(size + size // 4),
        batch_tfms=aug_transforms(size=size),
    )
    loaders = block.dataloaders(table, bs=config.batch_size, num_workers=0)
    classifier = build_classifier(config.backbone, config.weights, source.classes, image_size=config.image_size)
    head = classifier.head_name

    def parts(model: object) -> list[list[object]]:
        named = list(model.named_parameters())  # type: ignore[attr-defined]
        return [[p for n, p in named if n.startswith(head) is of_head] for of_head in (False, True)]

    learner = Learner(loaders, classifier.model, splitter=parts, metrics=accuracy)
    learner.fine_tune(max(1, config.steps * config.batch_size // len(loaders.train_ds) - 1))
    test = DataFrame([(str(source.root / row.path), row.label) for row in rows if row.split == "test"])
    test.columns = ["path", "label"]
    scored, truth = learner.get_preds(dl=loaders.test_dl(test, with_labels=True))
    return 100 * float(accuracy(scored, truth))


def _array(tensor: Tensor) -> object:
    return tensor.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="directories of finished runs, one label an image")
    options = parser.parse_args()
    peers = {"svm": find_spec("sklearn"), "fastai": find_spec("fastai")}
    for name in [name for name, found in peers.items() if found is None]:
        print(f"{name}: not installed, skipped")
    for path in options.runs:
        run = Run(path)
        config = FinetuneConfig.load(run.config)
        check_split(config, run)
        if peers["svm"]:
            score = svm_score(*(features(config, split) for split in ("train", "val", "test")))
            print(f"{path.name}: svm {score:.1f} %", flush=True)
        if peers["fastai"]:
            print(f"{path.name}: fastai {fastai_score(config):.1f} %", flush=True)


if __name__ == "__main__":
    main()
