"""The training loop that one would write without stochnorm, which job.py compares the main job with.

    python benchmarks/plain.py photos/ --backbone torchvision/resnet50 --steps 100

float32, contiguous; PIL decodes, crops at random and mirrors each image at each use, in two worker processes; StochNorm
computes both branches of BatchNorm and mixes them. Model, head, loss, SGD, batch size, validations, selection and test
are the job's. (The job squashes an image before it crops, as the paper's protocol does; here the crop is of the file's
pixels, which saves a resize, unless --squash is given.)
The last line of its output is JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from blend import blend_everywhere
from stochnorm.data import Row, read_source
from stochnorm.models import build_classifier
from stochnorm.runs.config import FinetuneConfig
from stochnorm.training.images import split_rows


class Files(Dataset[tuple[Tensor, int]]):
    def __init__(self, root: Path, rows: list[Row], classes: tuple[str, ...], transform: Callable[..., Any]) -> None:
        self.root, self.rows, self.classes, self.transform = root, rows, classes, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = self.rows[index]
        with Image.open(self.root / row.path) as file:
            return self.transform(file.convert("RGB")), self.classes.index(row.label)


@torch.no_grad()
def accuracy(model: nn.Module, batches: DataLoader[Any]) -> float:
    model.eval()
    hits = [(model(images).argmax(1) == labels).float() for images, labels in batches]
    model.train()
    return 100 * float(torch.cat(hits).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="as for stochnorm finetune")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--eval-every", type=int, default=100)
    parser.add_argument("--lr", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--squash", action="store_true", help="before cropping, as the job does")
    args = parser.parse_args()

    source = read_source(args.data)
    images = split_rows(source, FinetuneConfig(args.data))
    torch.manual_seed(args.seed)
    classifier = build_classifier(
        args.backbone, args.weights, source.classes, image_size=args.image_size, seed=args.seed
    )
    about, model = classifier.preprocessing, blend_everywhere(classifier.model)
    tensor = [transforms.ToTensor(), transforms.Normalize(about.mean, about.std)]
    squash = [transforms.Resize((about.resize, about.resize))]
    crop = [
        *(squash if args.squash else []),
        transforms.RandomResizedCrop(about.image_size),
        transforms.RandomHorizontalFlip(),
    ]
    center = [*squash, transforms.CenterCrop(about.image_size)]

    def loader(split: str, transform: list[Any], **options: Any) -> DataLoader[Any]:
        rows = [row for row in images if row.split == split]
        files = Files(source.root, rows, source.classes, transforms.Compose([*transform, *tensor]))
        return DataLoader(files, args.batch_size, num_workers=2, persistent_workers=True, **options)

    train, val, test = (
        loader("train", crop, shuffle=True, drop_last=True),
        loader("val", center),
        loader("test", center),
    )
    optimizer = torch.optim.SGD(classifier.parameter_groups(args.lr), momentum=0.9, nesterov=True, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(0.66 * args.steps)])
    step, seconds, best = 0, 0.0, (-1.0, model.state_dict())
    model.train()
    start = time.perf_counter()
    while step < args.steps:
        for inputs, labels in train:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            scheduler.step()
            step += 1
            if step % args.eval_every == 0 or step == args.steps:
                seconds += time.perf_counter() - start
                score = accuracy(model, val)
                best = max(best, (score, copy.deepcopy(model.state_dict())), key=lambda pair: pair[0])
                start = time.perf_counter()
            if step == args.steps:
                break
    model.load_state_dict(best[1])
    print(json.dumps({"seconds": seconds, "test_top1": accuracy(model, test)}))


if __name__ == "__main__":
    main()
