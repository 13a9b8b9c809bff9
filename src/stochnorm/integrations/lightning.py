"""StochNorm in Lightning's `Trainer`."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import StochasticWeightAveraging

from stochnorm.integrations.policy import Kind, Policy
from stochnorm.nn.schedule import set_p

__all__ = ["StochNormCallback"]


class StochNormCallback(Callback):
    """Change p of a module's StochNorm layers at each optimizer step, and keep masks out of averaged statistics.

    Convert the network in the module (`stochnorm.convert`). Lightning's `StochasticWeightAveraging` recomputes the
    moving statistics in an epoch of its own; for that epoch p is 1, so that they are those without masks.

    Args:
        p: p at the first step, in [0, 1].
        p_end: p at the last step, in [0, 1]; None: as at the first.
        kind: `linear` or `cosine`: how p goes from the first to the last step.

    Raises:
        ValueError: p outside [0, 1], an unknown kind; at the first step, a module without StochNorm layers.

    Example:
        >>> from pytorch_lightning import Trainer  # doctest: +SKIP
        >>> Trainer(max_epochs=5, callbacks=[StochNormCallback(p=1.0, p_end=0.5)])  # doctest: +SKIP
    """

    def __init__(self, p: float = 0.5, p_end: float | None = None, kind: Kind = "linear") -> None:
        self.policy = Policy.of(p, p_end, kind)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set p for the step."""
        averages = [each for each in trainer.callbacks if isinstance(each, StochasticWeightAveraging)]
        if any(trainer.current_epoch > each.swa_end for each in averages):
            set_p(pl_module, 1.0)
        else:
            self.policy.apply(pl_module, trainer.global_step, int(trainer.estimated_stepping_batches))
