"""Applies the methods of a run that act on the weights it keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from stochnorm.evaluation.logits import evaluate_split
from stochnorm.methods.catalogue import methods_of
from stochnorm.models.saved import save_classifier
from stochnorm.models.weights import read_notes, read_state_dict
from stochnorm.training.job import Job
from stochnorm.training.probe.probe import fit_probe

__all__ = ["keep", "starting_weights"]

Weights = Mapping[str, Tensor]


def starting_weights(job: Job) -> dict[str, Tensor]:
    """Return a copy of the weights before training, on the CPU; nothing where no method asks for them.

    Where a method mixes the linear probe and the head is random, the copy has the probe's head, and the model does not.
    A run that is resumed has them again, as the job is assembled from the same settings and images.

    Raises:
        ValueError: A method mixes the probe, and the logits of the network are not a linear map of its features.
    """
    methods = [method for method in methods_of(job.config.method) if method.acts_on == "weights"]
    if not methods:
        return {}
    start = {key: value.detach().cpu().clone() for key, value in job.classifier.model.state_dict().items()}
    if job.probe is None and any(method.mixes_probe for method in methods):
        config, head = job.config, job.classifier.head_name
        views, size = config.probe.views, config.batch_size
        probe = fit_probe(
            job.classifier, job.splits, job.fabric, job.task, views=views, batch_size=size, seed=config.seed
        )
        job.objective.forget()
        start[f"{head}.weight"] = probe.head.weight.view_as(start[f"{head}.weight"]).clone()
        start[f"{head}.bias"] = probe.head.bias.clone()
    return start


def keep(job: Job, start: Weights, ends: Sequence[Weights] = ()) -> dict[str, Any]:
    """Replace the model in the run directory by the one that the methods keep. The first process does it.

    The file's metadata say that this was done, so that it is not done twice to a run that was killed behind it.

    Args:
        job: A job whose training is done.
        start: The weights before training.
        ends: The weights of several trainings; none: those in the run directory.

    Returns:
        What `result.json` says; nothing where no method acts on the weights.
    """
    config, run = job.config, job.run
    methods = [method for method in methods_of(config.method) if method.acts_on == "weights"]
    if not methods or not job.fabric.is_global_zero:
        return {}
    notes = read_notes(run.model)
    facts: dict[str, Any] = notes.get("kept", {})
    if not facts:
        weights = list(ends) or [read_state_dict(run.model)]
        for method in methods:
            kept, facts[method.name] = method.keep(start, weights, lambda w: _score(job, w), method.settings_of(config))
            weights = [kept]
        job.classifier.model.load_state_dict(weights[0])
        save_classifier(
            run.model, job.classifier, {"method": config.method, "step": notes.get("step", config.steps), "kept": facts}
        )
    for method in methods:
        job.display.note(method.tell(facts[method.name]))
    return {"method": job.method | facts}


def _score(job: Job, weights: Weights) -> tuple[float, float]:
    """Return the validation score, in percent, and the negative validation loss."""
    job.classifier.model.load_state_dict(weights)
    size = job.config.batch_size
    _, metrics = evaluate_split(job.classifier, job.splits["val"], job.fabric, batch_size=size, task=job.task)
    score = metrics[job.task.score]
    return -math.inf if score is None else score, -metrics["loss"]
