"""StochNorm in the Trainer of Hugging Face's transformers: `pip install 'transformers[torch]'`.

python examples/huggingface.py --epochs 10
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import numpy as np
import torch
from groceries import network, photographs
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments, set_seed

from stochnorm.integrations.transformers import StochNormCallback


class ForClassification(nn.Module):
    """What the Trainer expects of a model: named tensors in, a loss and logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.network(pixel_values)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def collate(images: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    """Return a batch."""
    return {
        "pixel_values": torch.stack([image for image, _ in images]),
        "labels": torch.tensor([label for _, label in images]),
    }


def accuracy(predicted: Any) -> dict[str, float]:
    """Return the accuracy in percent."""
    return {"accuracy": 100 * float(np.mean(predicted.predictions.argmax(1) == predicted.label_ids))}


def main(epochs: int) -> float:
    """Train; return the test accuracy in percent."""
    set_seed(0)
    train, test = photographs()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=24,
            learning_rate=1e-3,
            dataloader_drop_last=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = Trainer(
            ForClassification(),
            arguments,
            data_collator=collate,
            train_dataset=train,
            eval_dataset=test,
            compute_metrics=accuracy,
            callbacks=[StochNormCallback(p=1.0, p_end=0.5)],
        )
        trainer.train()
        return float(trainer.evaluate()["eval_accuracy"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    print(f"test accuracy {main(parser.parse_args().epochs):.1f} %")
