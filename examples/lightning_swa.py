"""StochNorm in Lightning, with stochastic weight averaging: `pip install pytorch-lightning`.

python examples/lightning_swa.py --epochs 10
"""

from __future__ import annotations

import argparse

import pytorch_lightning as lightning
import torch
from groceries import loaders, network
from pytorch_lightning.callbacks import StochasticWeightAveraging
from torch import Tensor
from torch.nn import functional as F

from stochnorm.integrations.lightning import StochNormCallback


class Fruit(lightning.LightningModule):
    """A classifier; nothing in it knows of StochNorm but the network."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def test_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        right = self.network(batch[0]).argmax(1) == batch[1]
        self.log("accuracy", 100 * right.float().mean(), batch_size=len(right))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.003, momentum=0.9, weight_decay=1e-4)


def main(epochs: int) -> float:
    """Train; return the test accuracy in percent."""
    lightning.seed_everything(0)
    train, test = loaders()
    callbacks = [StochNormCallback(p=1.0, p_end=0.5), StochasticWeightAveraging(0.003, swa_epoch_start=0.5)]
    trainer = lightning.Trainer(
        max_epochs=epochs, callbacks=callbacks, devices=1, logger=False, enable_checkpointing=False
    )
    module = Fruit()
    trainer.fit(module, train)
    return float(trainer.test(module, test, verbose=False)[0]["accuracy"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    print(f"test accuracy {main(parser.parse_args().epochs):.1f} %")
