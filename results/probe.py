"""Fit a linear probe on the images of a comparison's runs: the trivial baseline that every method has to beat.

    python results/probe.py results/birds-15/records.jsonl

For each repetition: features of the frozen backbone (center crop, before the head) for the same training, validation
and test images; standardized; multinomial logistic regression, its L2 strength chosen on validation; test accuracy.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stochnorm import FinetuneConfig, build_classifier, read_records
from stochnorm.data import ImageStore, Split, read_source
from stochnorm.data.images.center import CenterCrops
from stochnorm.nn.hooks.taps import InputTap
from stochnorm.training.images import split_rows

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


@torch.no_grad()
def features(config: FinetuneConfig, name: str) -> tuple[Tensor, Tensor]:
    """Return the features (n, d) and labels (n,) of a split."""
    source = read_source(config.data)
    rows = [row for row in split_rows(source, config) if row.split == name]
    classifier = build_classifier(config.backbone, config.weights, source.classes, image_size=config.image_size)
    store = ImageStore(source.root, rows, classifier.preprocessing, listed=[row.path for row in source.rows])
    split = Split.of(store, name, source.classes)
    model, head = classifier.model.eval(), classifier.head_name
    found, labels = [], []
    with InputTap(model, [head]) as tap:
        for images, targets in CenterCrops(split, range(len(split)), classifier.preprocessing, 32, torch.device("cpu")):
            model(images)
            found.append(tap.values.pop(head).flatten(1))
            labels.append(targets)
    return torch.cat(found), torch.cat(labels)


def fit(x: Tensor, y: Tensor, classes: int, strength: float) -> nn.Linear:
    """Return multinomial logistic regression with an L2 penalty on the weights, by L-BFGS."""
    model = nn.Linear(x.size(1), classes)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) + strength * model.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


def score(model: nn.Linear, split: tuple[Tensor, Tensor], scale: tuple[Tensor, Tensor]) -> float:
    """Return the accuracy on features that are standardized by mean and deviation, in percent."""
    predicted = model((split[0] - scale[0]) / scale[1]).argmax(1)
    return 100 * float((predicted == split[1]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", help="records.jsonl of a comparison")
    options = parser.parse_args()
    runs = {record.repeat: record for record in read_records([options.records])}
    scores = []
    for repeat, record in sorted(runs.items()):
        config = FinetuneConfig.from_dict(record.settings)
        (x, y), val, test = (features(config, name) for name in ("train", "val", "test"))
        mean, deviation = x.mean(0), x.std(0) + 1e-6

        models = {strength: fit((x - mean) / deviation, y, record.classes, strength) for strength in STRENGTHS}
        scale = mean, deviation
        _, best = max((score(models[strength], val, scale), strength) for strength in STRENGTHS)
        scores.append(score(models[best], test, scale))
        print(f"repetition {repeat}: {len(x)} training images, strength {best:g}, test {scores[-1]:.1f} %", flush=True)
    print(f"probe: {statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f} (n = {len(scores)})")


if __name__ == "__main__":
    main()
