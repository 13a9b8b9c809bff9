"""StochNorm in fastai: `pip install fastai`.

python examples/fastai_learner.py --epochs 10
"""

from __future__ import annotations

import argparse

import fastai.callback.schedule  # noqa: F401 (fit_one_cycle)
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.torch_core import default_device, set_seed
from groceries import loaders, network
from torch.nn import functional as F

from stochnorm.integrations.fastai import StochNormCallback


def main(epochs: int) -> float:
    """Train; return the test accuracy in percent."""
    set_seed(0)
    learner = Learner(
        DataLoaders(*loaders(), device=default_device()),
        network(),
        loss_func=F.cross_entropy,
        metrics=accuracy,
        cbs=[StochNormCallback(p=1.0, p_end=0.5)],
    )
    learner.remove_cbs(ProgressCallback)
    learner.fit_one_cycle(epochs, 0.003)
    return 100 * float(learner.validate()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    print(f"test accuracy {main(parser.parse_args().epochs):.1f} %")
