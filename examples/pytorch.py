"""StochNorm in a training loop of one's own: p falls from 1 to 0.5, and the saved model has plain BatchNorm.

python examples/pytorch.py --epochs 10
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from groceries import loaders, network
from torch.nn import functional as F

import stochnorm
from stochnorm.nn import schedule, set_p


def main(epochs: int, out: Path) -> float:
    """Train; save the weights; return the test accuracy in percent."""
    torch.manual_seed(0)
    model, (train, test) = network(), loaders()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003, momentum=0.9, weight_decay=1e-4)
    step, steps = 0, epochs * len(train)
    model.train()
    for _ in range(epochs):
        for images, labels in train:
            set_p(model, schedule("linear", 1.0, 0.5, step, steps))
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            step += 1
    stochnorm.restore(model)  # BatchNorm, with the same parameters and statistics
    model.eval()
    with torch.inference_mode():
        right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in test)
    torch.save(model.state_dict(), out)
    return 100 * right / len(test.dataset)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("groceries.pt"))
    options = parser.parse_args()
    print(f"test accuracy {main(options.epochs, options.out):.1f} %")
