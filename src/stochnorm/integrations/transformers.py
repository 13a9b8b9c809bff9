"""StochNorm in the `Trainer` of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stochnorm.integrations.policy import Kind, Policy

__all__ = ["StochNormCallback"]


class StochNormCallback(TrainerCallback):
    """Change p of a model's StochNorm layers at each optimizer step.

    Convert the model (`stochnorm.convert`) before it is given to the `Trainer`.

    Args:
        p: p at the first step, in [0, 1].
        p_end: p at the last step, in [0, 1]; None: as at the first.
        kind: `linear` or `cosine`: how p goes from the first to the last step.

    Raises:
        ValueError: p outside [0, 1], an unknown kind; at the first step, a model without StochNorm layers.
    """

    def __init__(self, p: float = 0.5, p_end: float | None = None, kind: Kind = "linear") -> None:
        self.policy = Policy.of(p, p_end, kind)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set p for the step."""
        self.policy.apply(kwargs["model"], state.global_step, state.max_steps)
