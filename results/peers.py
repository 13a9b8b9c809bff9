"""Train what people use otherwise on the images and splits of finished runs: a support vector machine, and fastai.

    python results/peers.py runs/photos-probe-* --peer svm      # needs scikit-learn
    python results/peers.py runs/photos-probe-* --peer fastai   # needs fastai

svm: support vector classification (RBF kernel) on standardized features of the run's frozen backbone (center crop, the
run's image size), for its training images; C chosen on its validation images among STRENGTHS.

fastai: `vision_learner` and `fine_tune` by fastai's defaults (batches of 64, base learning rate 0.002, the augmentation
of its book), for EPOCHS after the one of the head, with the weights and the image size of the run.

The test images are scored once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from torch import Tensor

from probe import features
from stochnorm import FinetuneConfig, build_classifier
from stochnorm.data import read_source
from stochnorm.data.manifest import Row, list_manifest
from stochnorm.runs.directory import Run
from stochnorm.training.images import split_rows

__all__ = ["check_split", "fastai_score", "main", "svm_score"]

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
EPOCHS = 20


def check_split(config: FinetuneConfig, run: Run) -> None:
    """Raise ValueError unless the settings give the split that the run had."""
    now = {(row.path, row.split) for row in split_rows(read_source(config.data), config)}
    then = {(row.path, row.split) for row in list_manifest(run.split, exact=True).rows}
    if now != then:
        raise ValueError(f"{run.split}: the data changed since the run; {len(now ^ then)} images are split otherwise")


def svm_score(config: FinetuneConfig) -> float:
    """Return the test accuracy, in percent, of a support vector machine whose C is the best on validation."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    train, val, test = (features(config, split) for split in ("train", "val", "test"))
    models = [make_pipeline(StandardScaler(), SVC(C=strength)).fit(*map(_array, train)) for strength in STRENGTHS]
    best = max(models, key=lambda model: model.score(*map(_array, val)))
    return 100 * float(best.score(*map(_array, test)))


def fastai_score(config: FinetuneConfig) -> float:
    """Return the test accuracy, in percent, of fastai's `fine_tune` with the pre-trained weights of the run."""
    from fastai.vision import all as fastai
    from pandas import DataFrame

    def table(rows: list[Row]) -> DataFrame:
        return DataFrame(
            {
                "name": [r.path for r in rows],
                "label": [r.label for r in rows],
                "valid": [r.split == "val" for r in rows],
            }
        )

    source = read_source(config.data)
    rows = split_rows(source, config)
    backbone = build_classifier(config.backbone, config.weights, source.classes, image_size=config.image_size)
    mean, std = backbone.preprocessing.mean, backbone.preprocessing.std
    fastai.set_seed(config.seed)
    loaders = fastai.ImageDataLoaders.from_df(
        table([row for row in rows if row.split in ("train", "val")]),
        source.root,
        valid_col="valid",
        item_tfms=fastai.Resize(2 * config.image_size),
        batch_tfms=[
            *fastai.aug_transforms(size=config.image_size, min_scale=0.75),
            fastai.Normalize.from_stats(mean, std),
        ],
        num_workers=0,
    )
    learner = fastai.vision_learner(
        loaders, config.backbone, pretrained=False, normalize=False, metrics=fastai.accuracy
    )
    missing = learner.model[0].model.load_state_dict(backbone.model.state_dict(), strict=False).missing_keys
    if missing:
        raise ValueError(f"{config.backbone}: {len(missing)} tensors of fastai's body have no weights: {missing[0]}")
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(EPOCHS)
        test = loaders.test_dl(table([row for row in rows if row.split == "test"]), with_labels=True)
        logits, labels = learner.get_preds(dl=test)
    return 100 * float((logits.argmax(1) == labels).float().mean())


def _array(tensor: Tensor) -> object:
    return tensor.numpy()


PEERS = {"svm": svm_score, "fastai": fastai_score}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="directories of finished runs, one label an image")
    parser.add_argument("--peer", choices=PEERS, default="svm")
    options = parser.parse_args()
    scores = []
    for path in options.runs:
        run, start = Run(path), time.monotonic()
        config = FinetuneConfig.load(run.config)
        check_split(config, run)
        scores.append(PEERS[options.peer](config))
        print(f"{path.name}: {options.peer} {scores[-1]:.1f} %, {time.monotonic() - start:.0f} s", flush=True)
    if len(scores) > 1:
        print(f"{options.peer}: {statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f} (n = {len(scores)})")


if __name__ == "__main__":
    main()
