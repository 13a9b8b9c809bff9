"""One run: from settings to a tested model."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from stochnorm.evaluation.logits import evaluate_split
from stochnorm.evaluation.result import Evaluation
from stochnorm.evaluation.tasks import MultiLabel, Task
from stochnorm.files import write_text
from stochnorm.methods.catalogue import trains
from stochnorm.models.weights import read_state_dict, weight_file
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.determinism import repeatable
from stochnorm.runs.directory import Run
from stochnorm.runs.hardware import check_device, environment, is_first_process
from stochnorm.runs.images import check_images, images_kept
from stochnorm.training.display import Display
from stochnorm.training.job import Job, assemble
from stochnorm.training.kept.keep import keep, starting_weights
from stochnorm.training.loop import Trained, fit
from stochnorm.training.probe.probe import Probe
from stochnorm.training.probe.run import honest_validation, keep_probe, probe_facts
from stochnorm.training.recovery import settle
from stochnorm.training.selection import selected
from stochnorm.training.shown import result_html, result_lines

__all__ = ["Result", "conclude", "opened", "train", "write_page"]


@dataclass(frozen=True, repr=False)
class Result:
    """The result of a run."""

    run: Path
    """Run directory."""
    record: dict[str, Any]
    """Content of `result.json`."""

    def __repr__(self) -> str:
        return "\n".join(result_lines(self.run, self.record))

    def __fspath__(self) -> str:
        """Return the run directory, so that the result can be given where a run is asked for."""
        return str(self.run)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return result_html(self.run, self.record)

    @property
    def validation(self) -> dict[str, Any]:
        """Metrics of the kept model on validation images, which select it unless `select` is last; empty without."""
        return self.record["validation"]  # type: ignore[no-any-return]

    @property
    def test(self) -> dict[str, Any] | None:
        """Metrics on test images; None without any."""
        return self.record["test"]  # type: ignore[no-any-return]


def train(
    config: FinetuneConfig,
    *,
    quiet: bool = False,
    test: bool = True,
    validated: Callable[[dict[str, Any]], None] | None = None,
    probe: Probe | None = None,
    together: bool = False,
) -> Result:
    """Do one run; arguments and errors are those of [stochnorm.finetune][].

    `probe` is the linear probe of these settings, if it was fitted before. `together` is for a run that trains on the
    validation images too, once nothing is left to choose.
    """
    config.check_used()
    device = check_device(config.device, config.precision)
    first = is_first_process()
    display = Display(quiet=quiet or not first)
    run = Run.of(config)
    if first:
        run.check_place(config)
    with run.held() if first else nullcontext():
        if first:
            run.check(config)
        if config.resume and run.result.is_file():
            display.note(f"{run.path} is finished; this is its result")
            run.forget_progress()  # left by a process that was killed between the two
        else:
            if first and config.resume:
                settle(run, config.select)
            with repeatable(device, wanted=config.deterministic):
                job = assemble(config, run, display, test=test, validated=validated, probe=probe, together=together)
                with opened(job, config):
                    start = starting_weights(job)
                    trained = fit(job) if trains(config.method) else keep_probe(job)
                    conclude(job, trained, keep(job, start))
        result = Result(run.path, run.read_result())
        display.result(result.record, run)
        return result


@contextmanager
def opened(job: Job, config: FinetuneConfig, *, tested: bool = True) -> Iterator[None]:
    """Make the run directory, or check that the images are those of the run to resume; show what trains on what.

    The directory keeps the settings as they were given, which the job may have fitted to the images. `tested` is False
    for a job that has not read the test images of a run that reads them at its end.
    """
    run, images = job.run, job.store
    with ExitStack() as stack:
        if job.fabric.is_global_zero:
            listed = run.split.read_text(encoding="utf-8") if config.resume and run.split.is_file() else job.manifest
            if (listed if tested else _without_test(listed)) != job.manifest:
                raise ValueError(
                    f"cannot resume {run.path}: the images of {config.data} are not those of its split.csv, so test "
                    "images could be trained on; restore the images, or start again with --overwrite"
                )
            if config.resume:
                check_images(run, images.root)
            run.open(config)
            write_text(run.split, job.manifest)
            weights = weight_file(config.weights).absolute()
            names = [*(row.path for row in images.rows), *([str(weights)] if weights.is_file() else [])]
            stack.enter_context(images_kept(run, images.root, names))
        job.display.header(job)
        job.fabric.barrier()
        yield


def _without_test(manifest: str) -> str:
    """Return a list of images without those of the test."""
    titles, *rows = csv.reader(io.StringIO(manifest, newline=""))
    split = titles.index("split")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([titles, *(row for row in rows if row[split] != "test")])
    return text.getvalue()


def conclude(job: Job, trained: Trained, facts: Mapping[str, Any] | None = None, logits: Tensor | None = None) -> None:
    """Score the kept model, on test images once, and write the result and its page. The first process does it.

    Args:
        job: The job; its directory has the model.
        trained: The training that led to it.
        facts: Further content of `result.json`, or other content under its keys.
        logits: Logits (n, num_classes) of the validation images, of a model that has not seen them, if the kept model
            has; None: they are those of the kept model.
    """
    if job.fabric.is_global_zero:
        job.classifier.model.load_state_dict(read_state_dict(job.run.model))
        task = replace(job.task, resamples=1000) if isinstance(job.task, MultiLabel) else job.task
        val, batch_size = job.splits["val"], job.config.batch_size
        validation: dict[str, Any] = {}
        if logits is not None:
            validation = task.metrics(logits, val.targets, groups=val.groups if any(val.groups) else None)
        elif len(val):
            _, found = evaluate_split(job.classifier, val, job.fabric, batch_size=batch_size, task=task)
            validation = honest_validation(job, found)
        tested = _test(job, task) if job.counts["test"] else None
        record = _record(job, task, trained, validation, tested) | dict(facts or {})
        write_text(job.run.result, json.dumps(record, indent=2, allow_nan=False) + "\n")
        job.run.forget_progress()
        job.trackers.finish(record)
        if job.config.report:
            write_page(job.run)
    job.fabric.barrier()


def _test(job: Job, task: Task) -> dict[str, Any]:
    """Return the metrics on test images; write predictions and the confusion matrix."""
    split, config = job.splits["test"], job.config
    logits, metrics = evaluate_split(
        job.classifier, split, job.fabric, batch_size=config.batch_size, ten_crop=config.ten_crop, task=task
    )
    tested = Evaluation.of("test", split, task, logits, metrics)
    write_text(job.run.predictions, tested.predictions_csv())
    if confusion := tested.confusion_csv():
        write_text(job.run.confusion, confusion)
    return metrics


def _record(
    job: Job, task: Task, trained: Trained, validation: dict[str, Any], test: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the content of `result.json`."""
    config, history = job.config, trained.history
    last = history[-1]
    return {
        "config": asdict(config),
        "weights": job.classifier.weights,
        "classes": job.classifier.classes,
        "score": task.score,
        "images": job.counts,
        "left_out": job.skipped,
        "method": job.method,
        "selected": {
            "step": selected(history, config.select)["step"],
            "by": _selected_by(job, task),
        },
        **(
            {"stopped_early": last["step"]}
            if config.patience and last["step"] < (trained.planned or config.steps)
            else {}
        ),
        **probe_facts(job, validation),
        "validation": validation,
        "test": test,
        "cost": {
            "seconds": last["seconds"],
            "images_per_second": last["images_per_second"],
            "peak_memory_gigabytes": job.memory.gigabytes(),
        },
        "environment": environment(job.fabric, job.precision) | {"cuda_graph": trained.cuda_graph},
    }


def _selected_by(job: Job, task: Task) -> str:
    """Return how the model that is kept was selected."""
    if job.probe is not None and not trains(job.config.method):
        return f"strength by {job.probe.chosen_by}"
    return f"validation {task.score_title}, then loss" if job.config.select == "best" else "last iterate"


def write_page(run: Run) -> None:
    """Write the page about the run; if that fails, warn, since the result is complete."""
    try:
        from stochnorm.report import write_report
        from stochnorm.runs.records import record_of

        write_report([record_of(run)], run.report, root=Path())
    except Exception as error:
        warnings.warn(
            f"{run.report} was not written ({error}); the result is complete; stochnorm report {run.path} tries again",
            stacklevel=2,
        )
