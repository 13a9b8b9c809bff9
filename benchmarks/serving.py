"""``predict`` against the least it has to do, and ten-crop evaluation against ten passes over single crops.

    python benchmarks/serving.py                                    # EfficientNet-Lite0, 128 generated photographs
    python benchmarks/serving.py --data photos/cats --backbone torchvision/resnet50 --rounds 9

In one process, in turns, in random order; ratios of medians. The least that ``predict`` has to do is to decode each
file and to run each batch through the bare model, one after the other, as ``decode`` and ``forward`` do here; what it
adds is reading the model from its file, softmax and the answers. It may beat that by decoding beside the model. The ten
crops of an image are compared with ten evaluations of its center crop, both of images in memory, in batches of equal
size.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from images import write_images
from measure import Outcome, arguments, at_most, side_by_side
from stochnorm.data.folder import image_files
from stochnorm.evaluation.logits import predict_logits
from stochnorm.evaluation.predict import predict
from stochnorm.models import build_classifier, load_classifier, save_classifier
from stochnorm.runs.hardware import launch
from training_step import BUNDLED, CLASSES


class Serving:
    """The functions that are timed."""

    def __init__(self, backbone: str, files: list[Path], folder: Path, batch_size: int) -> None:
        self.files, self.file, self.batch_size = files, folder / "model.safetensors", batch_size
        classifier = build_classifier(backbone, "auto" if backbone == BUNDLED else "random", CLASSES)
        save_classifier(self.file, classifier, {})
        self.classifier = load_classifier(self.file)
        self.classifier.model.to(memory_format=torch.channels_last)
        self.about = self.classifier.preprocessing
        self.fabric = launch(model=self.classifier.model)
        self.images = self.decode()

    def predict(self) -> None:
        predict(self.file, self.files, batch_size=self.batch_size)

    def decode(self) -> Tensor:
        return torch.stack([self.about.read(file) for file in self.files])

    def forward(self) -> None:
        """The model alone, on images in memory."""
        predict_logits(self.classifier.model, self.images.split(self.batch_size), self.about, self.fabric)

    def ten_crop(self) -> None:
        batches = self.images.split(max(self.batch_size // 10, 1))
        predict_logits(self.classifier.model, batches, self.about, self.fabric, ten_crop=True)

    def ten_passes(self) -> None:
        for _ in range(10):
            self.forward()


def main() -> None:
    parser = arguments(__doc__, "serving")
    parser.add_argument("--data", type=Path, help="a folder of images; none: generated photographs")
    parser.add_argument("--backbone", default=BUNDLED)
    parser.add_argument("--images", type=int, default=128, help="at most")
    parser.add_argument("--batch-size", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()

    outcome = Outcome(
        f"Serving, {args.backbone}",
        ["what", "ms an image", "against", "ms an image", "ratio"],
        "*predict* from the files, against decoding them and then running the bare model; ten crops of an image "
        "against ten passes over its center crop.",
    )
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or write_images(Path(folder) / "photos", args.images, 1)
        files = image_files(data)[: args.images]
        serving = Serving(args.backbone, files, Path(folder), args.batch_size)
        whole, decode, forward = side_by_side([serving.predict, serving.decode, serving.forward], args.rounds)
        serving.images = serving.images[: max(len(files) // 4, 1)]
        tens = side_by_side([serving.ten_crop, serving.ten_passes], args.rounds)
    least = decode.median + forward.median
    ratio, ten = whole.median / least, tens[0].over(tens[1])
    scale = 1e3 / len(files)
    parts = SimpleNamespace(decode=scale * decode.median, forward=scale * forward.median)
    against = f"decoding ({parts.decode:.1f}) and the bare model ({parts.forward:.1f})"
    outcome.rows.append(["predict", f"{scale * whole.median:.1f}", against, f"{scale * least:.1f}", f"{ratio:.2f}"])
    few = 1e3 / len(serving.images)
    row = ["ten crops", f"{few * tens[0].median:.1f}", "ten passes", f"{few * tens[1].median:.1f}", f"{ten:.2f}"]
    outcome.rows.append(row)
    outcome.goals.append(at_most(1.10, "time of predict to decoding and the bare model's forward passes", ratio))
    outcome.goals.append(at_most(1.05, "time of ten-crop evaluation to ten passes over single crops", ten))
    outcome.write(args.out)


if __name__ == "__main__":
    main()
