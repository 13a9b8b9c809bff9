"""The linear probe as a run of its own, and as what another run is measured by."""

from __future__ import annotations

from typing import Any

from stochnorm.methods.catalogue import trains
from stochnorm.models import save_classifier
from stochnorm.training.curves import plot_curves
from stochnorm.training.job import Job
from stochnorm.training.loop import Trained

__all__ = ["honest_validation", "keep_probe", "probe_facts"]


def keep_probe(job: Job) -> Trained:
    """Save the model, whose head is the probe, and leave what a training of one validation leaves."""
    probe, score = job.probe, job.task.score
    assert probe is not None
    record: dict[str, Any] = {"step": 0, "epoch": 0.0, "lr": 0.0, "score": score}
    for name, metrics in (("train", probe.train), ("val", probe.validation)):
        wanted = ("loss", score, "mean_per_class") if name == "val" else ("loss", score)
        record |= {f"{name}_{key}": metrics[key] for key in wanted if key in metrics}
    seen = job.counts["train"] + job.counts["val"]
    record |= {"images_per_second": seen / probe.seconds, "seconds": probe.seconds}
    if job.fabric.is_global_zero:
        with job.trackers.recording([]):
            save_classifier(job.run.model, job.classifier, {"method": job.config.method, "step": 0})
            job.run.write_metrics([record])
            plot_curves([record], record, job.task.score_title, job.run.curves)
            job.trackers.log(record)
        if job.validated is not None:
            job.validated(record)
    job.fabric.barrier()
    return Trained([record], "no step of training was made")


def honest_validation(job: Job, validation: dict[str, Any]) -> dict[str, Any]:
    """Return the validation metrics of a run: not those of a probe that was fitted on the validation images too."""
    probe = job.probe
    if probe is None or trains(job.config.method) or probe.fitted_on == "train":
        return validation
    return probe.validation


def probe_facts(job: Job, validation: dict[str, Any]) -> dict[str, Any]:
    """Return what `result.json` says of the probe, under the key `probe`; nothing if the head was random.

    `warning` is there if a training that started at the probe ended below it.
    """
    if job.probe is None:
        return {}
    score = job.task.score
    facts = job.probe.facts(score)
    before, after = facts[f"val_{score}"], validation[score]
    if trains(job.config.method) and before is not None and after is not None and after < before:
        facts["warning"] = (
            f"training ended below the probe that it started at: {after:.1f} instead of {before:.1f} % "
            f"{job.task.score_title} on validation images; --method probe keeps the probe, or try a lower --lr"
        )
    return {"probe": facts}
