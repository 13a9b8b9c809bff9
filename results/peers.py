"""Train what people use otherwise on the images and splits of finished runs: a support vector machine.

    python results/peers.py runs/photos-vanilla-*    # needs scikit-learn

Support vector classification (scikit-learn, RBF kernel) on standardized features of the run's frozen backbone (center
crop, the run's image size), for its training images; C chosen on its validation images among STRENGTHS; the test images
are scored once.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from torch import Tensor

from probe import features
from stochnorm import FinetuneConfig
from stochnorm.data import read_source
from stochnorm.runs.directory import Run
from stochnorm.training.images import split_rows

__all__ = ["check_split", "main", "svm_score"]

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


def _array(tensor: Tensor) -> object:
    return tensor.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="directories of finished runs, one label an image")
    options = parser.parse_args()
    for path in options.runs:
        run = Run(path)
        config = FinetuneConfig.load(run.config)
        check_split(config, run)
        score = svm_score(*(features(config, split) for split in ("train", "val", "test")))
        print(f"{path.name}: svm {score:.1f} %", flush=True)


if __name__ == "__main__":
    main()
