"""Search of hyper-parameters on validation images, by Optuna; test images are not used."""

from __future__ import annotations

import json
import os
import shlex
import socket
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochnorm.data import read_source
from stochnorm.data.splits import derive_seed
from stochnorm.files import locked, write_text
from stochnorm.methods.catalogue import trains
from stochnorm.models.kept import keeping
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.runs.images import check_images
from stochnorm.runs.warning import warnings_once
from stochnorm.spreadsheet import format_csv
from stochnorm.training.display import Display, describe
from stochnorm.training.finetune import finetune
from stochnorm.training.images import split_rows
from stochnorm.tuning.space import search_space, searched
from stochnorm.tuning.study import (
    best_of,
    check_owner,
    check_same,
    ended,
    import_optuna,
    offer,
    open_study,
    process_lock,
    put_back,
    put_back_killed,
    state,
    trials_of,
)

if TYPE_CHECKING:
    import optuna

__all__ = ["Tuned", "search_space", "searched", "tune"]


@dataclass(frozen=True)
class Tuned:
    """The result of a search."""

    config: FinetuneConfig
    """The chosen settings, to fine-tune and test with."""
    value: float
    """Validation score of the chosen trial, percent; the best of several, so too optimistic. The loss breaks ties."""
    trials: int
    """Number of trials that ended, pruned and diverged ones included."""
    path: Path
    """Directory of `chosen.json`, `trials.csv`, `search.png` and the trials' runs."""


def tune(
    config: FinetuneConfig,
    *,
    trials: int = 20,
    storage: str = "",
    prune: bool = True,
    space: Callable[[optuna.Trial, FinetuneConfig], FinetuneConfig] = search_space,
    quiet: bool = False,
) -> Tuned:
    """Search learning rate, strengths and p of a method on validation images.

    All trials see the same images in the same order. Test images are not read. A study is kept in an SQLite file in the
    directory; the same call continues it, and interrupted or killed trials continue from their checkpoints. Several
    processes may work on one study: each calls `tune` with the same
    settings and directory, and on several machines with a storage that all reach (any URL that Optuna takes).
    A warning of several trials is shown once.

    The first trial has the settings as given, so that a search of any budget includes them.

    Args:
        config: Data, method and the settings that are not searched; `out` is the directory of the search.
        trials: Total number of trials, earlier calls included. (With n processes, up to n - 1 more may end.)
        storage: URL of Optuna's storage, where the study has the name of the directory; empty for the SQLite file.
        prune: Stop trials that are worse than the median at the same step, after five complete ones.
        space: Function that chooses the settings of a trial.
        quiet: Print nothing.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
        ValueError: The study has other settings, belongs to another directory, or cannot be opened; or data and
            settings cannot work, as for `finetune`.
        FileExistsError: The directory holds other files.
        FloatingPointError: No trial ended with a result.
        KeyboardInterrupt: The search was stopped; the same call continues it.

    Example:
        >>> tuned = tune(FinetuneConfig("photos/", method="stochnorm+l2sp"), trials=30)  # doctest: +SKIP
        >>> finetune(tuned.config).test["top1"]  # doctest: +SKIP
        89.2
    """
    optuna = import_optuna()
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    if config.folds:
        raise ValueError(
            f"a search reads no test images, so folds {config.folds} has no effect; remove it, and fine-tune with the "
            "chosen settings and --folds"
        )
    if not config.val_fraction:
        raise ValueError("a search chooses by validation images, so val_fraction must be above 0, got 0")
    if config.method == "auto":
        raise ValueError("method auto searches by itself; name the method to tune, such as --method stochnorm")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError(
            "a trial trains in one process, got WORLD_SIZE above 1; start tune without torchrun, several times to "
            "share the work"
        )
    if not trains(config.method):
        raise ValueError(
            f"method {config.method} has nothing to search, since it chooses its strength itself; use finetune"
        )
    config = replace(config, resume=False, overwrite=False)
    if space is search_space:
        space(optuna.trial.FixedTrial(searched(config)), config)  # raises for values that cannot be searched from
    out = Path(config.out) if config.out else Run.of(config).path.with_name(Run.of(config).path.name + "-tune")
    display = Display(quiet=quiet)
    with warnings_once(), keeping():
        study = _begin(optuna, config, out, storage, prune, display)
        _search(optuna, study, config, out, trials, space, display)
    best = best_of(study)
    if best is None:
        raise FloatingPointError(
            f"none of {len(ended(study))} trials has a result, see {out / 'trials.csv'}; rerun the command with more "
            f"--trials"
        )
    _report(study, out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a trial of an earlier call may lie outside of this one's ranges
        chosen = replace(space(optuna.trial.FixedTrial(best.params), config), out="")
    write_text(out / "chosen.json", json.dumps(asdict(chosen), indent=2, allow_nan=False) + "\n")
    images = best.user_attrs.get("images", "the")
    display.note(
        f"chosen by {best.value:.1f} on {images} validation images: trial {best.number}, {_words(best.params)}"
    )
    again = ["stochnorm", "finetune", chosen.data, "--settings", str(out / "chosen.json")]
    display.note(f"next: {shlex.join(again)}")
    return Tuned(chosen, float(best.value), len(ended(study)), out)


def _begin(optuna: Any, config: FinetuneConfig, out: Path, storage: str, prune: bool, display: Display) -> optuna.Study:
    """Return the study, new or continued, after data and directory are checked."""
    run = Run(out)
    run.check_place(replace(config, out=str(out)))
    source = read_source(config.data)
    images = Counter(row.split for row in split_rows(source, config))
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = out.resolve().with_name(f".{out.resolve().name}.lock")  # of processes that start together
    with locked(lock, timeout=300):  # it is held for moments
        if not (out / "trials").is_dir():
            run.check(replace(config, out=str(out)))
        if not storage:
            (out / "trials").mkdir(parents=True, exist_ok=True)
        study = open_study(optuna, out, storage, prune)
        if storage:
            check_owner(study, out)
        for trial in ended(study):
            check_images(Run(out / trial.user_attrs["run"]), source.root)
        put_back_killed(study, out)
        check_same(study, config, out)
        offer(study, searched(config))
    display.facts(
        {
            "data": config.data,
            "images": f"{images['train']} train / {images['val']} val, {len(source.classes)} classes, "
            f"rate {config.rate:g} %; {images['test']} test images not used",
            "model": f"{config.backbone}, {config.weights} weights",
            "method": describe(config),
        }
    )
    return study


def _search(
    optuna: Any,
    study: optuna.Study,
    config: FinetuneConfig,
    out: Path,
    trials: int,
    space: Callable[[optuna.Trial, FinetuneConfig], FinetuneConfig],
    display: Display,
) -> None:
    """Run trials until there are enough."""
    name = uuid.uuid4().hex
    lock = process_lock(out, name)
    try:
        with lock:
            while (count := len(ended(study))) < trials:
                trial = study.ask()
                trial.set_user_attr("process", f"{socket.gethostname()}:{name}")
                # By the trial's number, so that processes that start together draw apart. Drawn one by one, not
                # jointly, as the number is only known now.
                seed = derive_seed("tune", config.seed, trial.number) % 2**32
                study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False)
                chosen = space(trial, config)
                display.note(f"{count + 1} of {trials}, trial {trial.number}: {_words(trial.params)}")
                try:
                    ending = _run(trial, chosen, out, optuna.TrialPruned)
                except BaseException:
                    put_back(study, trial)
                    raise
                display.note(f"    {ending}")
                _report(study, out)
                _drop_beaten(study, out)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"stopped after {len(ended(study))} of {trials} trials; the study is in {out}"
        ) from stop
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)


def _run(trial: optuna.Trial, chosen: FinetuneConfig, out: Path, pruned: type[Exception]) -> str:
    """Fine-tune without a test and tell the study; return how it ended, in words."""
    name = Run.of(replace(chosen, out="")).path.name
    trial.set_user_attr("run", f"trials/{name}")
    path = out / "trials" / name

    def report(record: dict[str, Any]) -> None:
        trial.report(record[f"val_{record['score']}"], record["step"])
        if trial.should_prune():
            raise pruned(f"pruned after step {record['step']} of {chosen.steps}")

    try:
        resume = (path / "config.json").is_file()
        settings = replace(chosen, out=str(path), resume=resume, report=False, log="none")  # trials.csv has them
        result = finetune(settings, quiet=True, test=False, validated=report)
    except (FloatingPointError, pruned) as error:
        trial.study.tell(trial, state=state("PRUNED"))
        return "diverged" if isinstance(error, FloatingPointError) else str(error)
    value = float(result.validation[result.record["score"]])
    trial.set_user_attr("loss", float(result.validation["loss"]))
    trial.set_user_attr("images", int(result.validation["images"]))
    trial.study.tell(trial, value)
    return f"validation {result.record['score']} {value:.1f}"


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
    )


def _drop_beaten(study: optuna.Study, out: Path) -> None:
    """Remove models and checkpoints of ended trials except the best one; their results stay."""
    best = best_of(study)
    kept = best.user_attrs["run"] if best else None  # two trials may have had the same settings, so the same run
    for trial in ended(study):
        if trial.user_attrs["run"] != kept:
            run = Run(out / trial.user_attrs["run"])
            run.forget_progress()
            run.model.unlink(missing_ok=True)


def _report(study: optuna.Study, out: Path) -> None:
    """`trials.csv` and a picture, after each trial."""
    from stochnorm.tuning.plot import plot_search

    trials = ended(study)
    names = sorted({name for trial in trials for name in trial.params})
    rows: list[list[Any]] = [["trial", "state", "validation", *names, "run"]]
    for trial in trials:
        value = "" if trial.value is None else f"{trial.value:.3f}"
        params = [round(x, 12) if isinstance(x := trial.params.get(name, ""), float) else x for name in names]
        rows.append([trial.number, trial.state.name.lower(), value, *params, trial.user_attrs["run"]])
    write_text(out / "trials.csv", format_csv(rows))
    best = best_of(study)
    if best is not None:
        complete = trials_of(study, "COMPLETE")
        points = [(trial.params, float(trial.value)) for trial in complete if trial.value is not None]
        plot_search(points, (best.params, best.value), out / "search")
