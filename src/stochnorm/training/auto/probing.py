"""The linear probe of `auto`: the first candidate, which all others have to beat."""

from __future__ import annotations

import json
import time

from stochnorm.files import write_text
from stochnorm.models.saved import save_classifier
from stochnorm.runs.directory import Run
from stochnorm.training.curves import plot_curves
from stochnorm.training.job import Job
from stochnorm.training.probe.probe import Probe, Refit, fit_probe, put_into_head

__all__ = ["fitted_probe", "write_probe"]


def fitted_probe(job: Job, refit: Refit = "never") -> Probe:
    """Fit the probe on training images, or on validation images too.

    Args:
        job: A job whose model is as pre-trained, but for its head.
        refit: As for [stochnorm.training.probe.probe.fit_probe][].

    Raises:
        ValueError: The network has no linear head.
    """
    config = job.config
    return fit_probe(
        job.classifier,
        job.splits,
        job.fabric,
        job.task,
        views=config.probe.views,
        batch_size=config.batch_size,
        refit=refit,
        seed=config.seed,
    )


def write_probe(job: Job, run: Run) -> Probe:
    """Fit the probe on training images, and write it as a run: model, one validation, result; return it.

    Args:
        job: A job without method, whose model is as pre-trained; the probe becomes its head.
        run: The run.

    Raises:
        ValueError: The network has no linear head.
    """
    start = time.monotonic()
    score, probe = job.task.score, fitted_probe(job)
    put_into_head(job.classifier, probe.head)
    run.path.mkdir(parents=True, exist_ok=True)
    save_classifier(run.model, job.classifier, {"method": "probe", "step": 0})
    seconds = time.monotonic() - start
    pace = (job.counts["train"] + job.counts["val"]) / seconds
    record = {
        "step": 0,
        "epoch": 0.0,
        "lr": 0.0,
        "score": score,
        "train_loss": probe.train["loss"],
        f"train_{score}": probe.train[score],
        "images_per_second": pace,
        "seconds": seconds,
        "val_loss": probe.validation["loss"],
        f"val_{score}": probe.validation[score],
    }
    run.write_metrics([record])
    plot_curves([record], record, job.task.score_title, run.curves)
    result = {
        "config": {"method": "probe"},
        "method": job.method | {"name": "probe", "probe": probe.facts(score)},
        "selected": {"step": 0, "by": "the linear probe, which takes no step"},
        "cost": {"seconds": seconds, "images_per_second": pace, "peak_memory_gigabytes": job.memory.gigabytes()},
        "environment": {},
    }
    write_text(run.result, json.dumps(result, indent=2, allow_nan=False) + "\n")
    return probe
