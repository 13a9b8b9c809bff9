"""Method `auto`: what a user gets who chooses nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from stochnorm.data import read_source
from stochnorm.files import write_text
from stochnorm.methods.auto import seconds_of
from stochnorm.models.saved import save_classifier
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.runs.hardware import check_device, check_one_process
from stochnorm.text import count
from stochnorm.training.auto.candidates import Kind
from stochnorm.training.auto.choose import Choice
from stochnorm.training.auto.refit import REFIT, Refitted, refit
from stochnorm.training.auto.search import TIMING, Search
from stochnorm.training.auto.state import State, Tried
from stochnorm.training.composite import in_its_directory
from stochnorm.training.display import Display
from stochnorm.training.images import split_rows
from stochnorm.training.job import Job, assemble
from stochnorm.training.loop import Trained
from stochnorm.training.train import Result, conclude, opened

__all__ = ["auto"]

_DECODING = 0.01  # seconds per test image that nobody has read yet


def auto(
    config: FinetuneConfig,
    *,
    quiet: bool = False,
    test: bool = True,
    validated: Callable[[dict[str, Any]], None] | None = None,
) -> Result:
    """Try a probe and several ways to fine-tune within a budget of time; arguments and errors as `stochnorm.finetune`.

    The choice is made on validation images. The result is an ordinary run, whose `result.json` says under `auto` what
    was tried, and which one was chosen, and why. No test image is read before the choice.
    """
    config.check_used()
    check_device(config.device, config.precision)
    check_one_process(
        "method auto works in one process", "start it without torchrun, or choose a --method, such as frozen"
    )
    display = Display(quiet=quiet)

    def work(run: Run) -> None:
        _work(config, run, display, test, validated)

    result = in_its_directory(config, display, work, kept="what was tried so far is")
    display.note(f"chosen: {result.record['auto']['why']}")
    return result


def _work(
    config: FinetuneConfig,
    run: Run,
    display: Display,
    test: bool,
    validated: Callable[[dict[str, Any]], None] | None,
) -> None:
    job = assemble(config, run, display, test=False)
    with opened(job, config, tested=False):
        _search(job, config, display, test, validated)


def _search(
    job: Job,
    config: FinetuneConfig,
    display: Display,
    test: bool,
    validated: Callable[[dict[str, Any]], None] | None,
) -> None:
    """Search, and make the run of the choice."""
    run = job.run
    state = State(run.search, resume=config.resume)
    search = Search(job, state, display, seconds=seconds_of(config.budget), validated=validated)
    tested = sum(row.split == "test" for row in split_rows(read_source(config.data), config)) if test else 0
    crops = 10 if config.ten_crop else 1

    def reserve(judging: float) -> float:
        return 3 * judging + tested * (_DECODING + crops * judging / job.counts["val"])

    try:
        choice = search.search(reserve)
    finally:
        state.keep()  # the time, if it was stopped
    _finish(job, search, choice, state, display, test)


def _finish(job: Job, search: Search, choice: Choice, state: State, display: Display, test: bool) -> None:
    """Make the run of the choice: its model, its curves, its test."""
    run, config = job.run, replace(job.config, out=str(job.run.path))
    chosen, parent = state.tried[choice.name], search.directory(choice.name)
    record = parent.read_result()
    again = refit(search, choice, state, display) if config.refit else None
    job.classifier.model.load_state_dict(again.weights if again else search.state_of(choice.name))
    save_classifier(
        run.model, job.classifier, {"method": record["config"]["method"], "step": record["selected"]["step"]}
    )
    run.take(parent, "metrics", "curves", "curves_svg")
    final = assemble(config, run, display, test=test)
    write_text(run.split, final.manifest)
    facts = {
        **_of_probe(again, final),
        "method": record["method"] | _of_probe(again, final) | {"chosen": chosen.title},
        "selected": record["selected"],
        "auto": {
            "budget": config.budget,
            "chosen": choice.name,
            "best": choice.best,
            "why": why(choice, state.tried, final.task.score_title, job.counts["val"], again),
            "refit": again.facts if again else None,
            "tried": [asdict(one) for one in state.tried.values()],
        },
        "cost": record["cost"] | {"seconds": state.seconds},
    }
    history = parent.read_metrics()
    with final.trackers.recording(history):
        pass
    conclude(
        final,
        Trained(history, record["environment"].get("cuda_graph", False), record["config"].get("steps")),
        facts,
        search.verdicts[choice.name].logits,
    )
    for name in (TIMING, REFIT):  # whose validation says nothing: one has hardly learned, the other has seen the images
        shutil.rmtree(run.candidates / name, ignore_errors=True)
    for name in state.tried:
        directory = Run(run.candidates / name)
        directory.model.unlink(missing_ok=True)
        directory.forget_progress()


def _of_probe(again: Refitted | None, job: Job) -> dict[str, Any]:
    return {"probe": again.probe.facts(job.task.score)} if again and again.probe else {}


def why(choice: Choice, tried: dict[str, Tried], score: str, images: int, again: Refitted | None = None) -> str:
    """Return the reason of the choice in a sentence, and in another one whether it was trained once more."""
    reason = _reason(choice, tried, score, images)
    return reason + (
        f" It was then {'fitted' if choice.name == 'probe' else 'trained'} once more, on all {again.facts['images']} "
        "training and validation images."
        if again
        else ""
    )


def _reason(choice: Choice, tried: dict[str, Tried], score: str, images: int) -> str:
    chosen, best = tried[choice.name], tried[choice.best]
    on = f"{score} on {count(images, 'validation image')}"
    if len([one for one in tried.values() if not one.reason]) == 1:
        others = f"; {count(len(tried) - 1, 'other')} dropped" if len(tried) > 1 else ""
        return f"{chosen.title} is all that could be tried{others}; it has {chosen.validation:.1f} % {on}."
    if choice.name == choice.best:
        return f"{chosen.title} has the best {on}, {chosen.validation:.1f} %."
    left_aside = _holds(tried, choice.name) and not _holds(tried, choice.best)
    lower = "the lowest loss of those that keep the inherited statistics" if left_aside else "the lower loss"
    return (
        f"{chosen.title} has {chosen.validation:.1f} % {on}, the best ({best.title}) {best.validation:.1f} %: that is "
        f"within one standard error ({choice.error:.1f} points), and {chosen.title} has {lower}."
    )


def _holds(tried: dict[str, Tried], name: str) -> bool:
    """Return whether a candidate, or the fine-tuned one of weights between, keeps the inherited statistics."""
    return Kind[tried[name.partition("@")[0]].kind] in (Kind.probe, Kind.frozen)
