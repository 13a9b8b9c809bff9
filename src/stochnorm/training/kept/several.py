"""A run of several trainings that differ in their random seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from stochnorm.data.splits import derive_seed
from stochnorm.methods.catalogue import methods_of
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.determinism import repeatable
from stochnorm.runs.directory import Run
from stochnorm.runs.hardware import check_device, check_one_process
from stochnorm.training.composite import in_its_directory
from stochnorm.training.display import Display
from stochnorm.training.job import Job, assemble
from stochnorm.training.kept.keep import keep, starting_weights
from stochnorm.training.loop import Trained
from stochnorm.training.train import Result, conclude, opened, train

__all__ = ["runs_of", "several"]


def runs_of(config: FinetuneConfig) -> int:
    """Return how many trainings lead to the result of a run."""
    return max(method.runs(method.settings_of(config)) for method in methods_of(config.method))


def several(
    config: FinetuneConfig,
    *,
    quiet: bool = False,
    test: bool = True,
    validated: Callable[[dict[str, Any]], None] | None = None,
) -> Result:
    """Train with several seeds, and keep what the method makes of the weights; arguments and errors as `finetune`.

    The first training is that of the run's own seed. All are runs in the folder `candidates`; their models are removed
    at the end. The result is an ordinary run, with the curves of the training that was best on validation images.
    `validated` is told of the first training.
    """
    config.check_used()
    device = check_device(config.device, config.precision)
    check_one_process(f"method {config.method} trains several times, in one process")
    display = Display(quiet=quiet)

    def work(run: Run) -> None:
        with repeatable(device, wanted=config.deterministic):
            _work(config, run, display, test, validated)

    return in_its_directory(config, display, work, kept="what was trained so far is")


def _work(
    config: FinetuneConfig,
    run: Run,
    display: Display,
    test: bool,
    validated: Callable[[dict[str, Any]], None] | None,
) -> None:
    job = assemble(config, run, display, test=test)
    with opened(job, config):
        _train_all(job, config, display, validated)


def _train_all(
    job: Job, config: FinetuneConfig, display: Display, validated: Callable[[dict[str, Any]], None] | None
) -> None:
    run = job.run
    start, count = starting_weights(job), runs_of(config)
    parts = [_part(config, run, number) for number in range(count)]
    with display.measuring(f"{count} trainings") as progress:
        progress(0.0)
        for number, part in enumerate(parts):

            def tell(record: dict[str, Any], number: int = number) -> None:
                progress((number + record["step"] / config.steps) / count)
                if validated is not None and number == 0:
                    validated(record)

            train(part, quiet=True, test=False, validated=tell, probe=job.probe)  # one start
    results = [Run.of(part).read_result() for part in parts]
    facts = keep(job, start, [read_state_dict(Run.of(part).model) for part in parts])
    best = max(range(count), key=lambda number: _rank(results[number], job.task.score))
    source = Run.of(parts[best])
    run.take(source, "metrics", "curves", "curves_svg")
    history = source.read_metrics()
    with job.trackers.recording(history):
        pass
    seconds = sum(result["cost"]["seconds"] for result in results)
    facts |= {"selected": results[best]["selected"], "cost": results[best]["cost"] | {"seconds": seconds}}
    conclude(job, Trained(history, results[best]["environment"]["cuda_graph"]), facts)
    for part in parts:
        Run.of(part).model.unlink(missing_ok=True)


def _part(config: FinetuneConfig, run: Run, number: int) -> FinetuneConfig:
    """Return the settings of one of the trainings; a part that was begun is resumed."""
    method = "+".join(m.name for m in methods_of(config.method) if m.acts_on != "weights") or "vanilla"
    seed = config.seed if number == 0 else derive_seed("several", config.seed, number)
    path = run.candidates / f"seed-{seed}"
    part = replace(
        config,
        method=method,
        seed=seed,
        out=str(path),
        resume=(path / "config.json").is_file(),
        overwrite=False,
        report=False,
        log="none",
    )
    return part.without_unused()


def _rank(result: dict[str, Any], score: str) -> tuple[float, float]:
    validation = result["validation"]
    return (float("-inf") if validation[score] is None else validation[score]), -validation["loss"]
