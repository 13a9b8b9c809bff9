"""Hyper-parameters chosen on validation, by Optuna; the test split stays shut."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochnorm.config import FinetuneConfig
from stochnorm.data.splits import derive_seed
from stochnorm.display import Display
from stochnorm.files import write_text
from stochnorm.job import finetune
from stochnorm.methods import check_method
from stochnorm.runs import Run

if TYPE_CHECKING:
    import optuna

__all__ = ["Tuned", "search_space", "tune"]

_AGAIN = "run again"  # attribute of the study: numbers of the trials that were stopped, and whose settings were queued


@dataclass(frozen=True)
class Tuned:
    """What a search came to."""

    config: FinetuneConfig
    """The chosen settings, to fine-tune and test with."""
    value: float
    """Validation score of the chosen trial, in percent; the best of several, so optimistic."""
    trials: int
    """Trials that ended, pruned and diverged ones included."""
    path: Path
    """Directory of ``chosen.json``, ``trials.csv``, ``search.png`` and the trials' runs."""


def search_space(trial: optuna.Trial, config: FinetuneConfig) -> FinetuneConfig:
    """The settings of a trial: learning rate, and p or the strength of each method in the sum.

    Published values lie inside: lr 1e-3 and 1e-2, p 0.5, L2-SP 0.01 and 0.1, BSS 1e-3; DELTA 0.01 (see its card).
    """
    methods = check_method(config.method)
    config = replace(config, lr=trial.suggest_float("lr", 3e-4, 3e-2, log=True))
    if "stochnorm" in methods:
        config = replace(config, p=round(trial.suggest_float("p", 0.1, 0.9, step=0.1), 1))
    if "l2sp" in methods:
        alpha = trial.suggest_float("l2sp.alpha", 1e-3, 1.0, log=True)
        config = replace(config, l2sp=replace(config.l2sp, alpha=alpha))
    if "delta" in methods:
        alpha = trial.suggest_float("delta.alpha", 1e-6, 1e-2, log=True)
        config = replace(config, delta=replace(config.delta, alpha=alpha))
    if "bss" in methods:
        config = replace(config, bss=replace(config.bss, eta=trial.suggest_float("bss.eta", 1e-5, 1e-1, log=True)))
    return config


def tune(
    config: FinetuneConfig,
    *,
    trials: int = 20,
    storage: str = "",
    prune: bool = True,
    space: Callable[[optuna.Trial, FinetuneConfig], FinetuneConfig] = search_space,
    quiet: bool = False,
) -> Tuned:
    """Search learning rate, strengths and p of a method on the validation split.

    All trials see the same images in the same order. Test images are not even read: whatever DATA holds out stays out.
    A study is kept in an SQLite file in the directory; the same call goes on with it. Trials that were interrupted or
    killed go on from their checkpoints. With a storage that several machines reach (any URL that Optuna takes), and a
    directory that they share, each runs ``tune`` and they work on one study.

    Args:
        config: Data, method and all that is not searched; ``out`` is the search's directory.
        trials: In all, those of earlier calls included.
        storage: URL of Optuna's storage; empty: the SQLite file.
        prune: Stop trials that are worse than the median at the same step, after five whole ones.
        space: Chooses the settings of a trial.
        quiet: Print nothing.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
        ValueError: The study there was made with other settings; or what fine-tuning says of data and settings.
        RuntimeError: No trial ended with a result.
        KeyboardInterrupt: Stopped; the same call goes on.

    Example:
        >>> tuned = tune(FinetuneConfig("photos/", method="stochnorm+l2sp"), trials=30)  # doctest: +SKIP
        >>> finetune(tuned.config).test["top1"]  # doctest: +SKIP
        89.2
    """
    optuna = _import_optuna()
    config = replace(config, resume=False, overwrite=False)
    out = Path(config.out) if config.out else Run.of(config).path.with_name(Run.of(config).path.name + "-tune")
    out.mkdir(parents=True, exist_ok=True)
    display = Display(quiet=quiet)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name="stochnorm",
        storage=storage or f"sqlite:///{out.resolve() / 'study.db'}",
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5) if prune else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    _check_same(study, config, out)
    _run_stopped_again(study, optuna)
    study.sampler = optuna.samplers.TPESampler(seed=derive_seed("tune", config.seed, len(study.trials)) % 2**32)
    states = optuna.trial.TrialState

    def ended() -> int:
        return len(study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED)))

    def objective(trial: Any) -> float:
        trial.set_user_attr("process", f"{socket.gethostname()}:{os.getpid()}")
        chosen = replace(space(trial, config), out="")
        run = out / "trials" / Run.of(chosen).path.name
        chosen = replace(chosen, out=str(run), resume=(run / "config.json").is_file())
        trial.set_user_attr("run", str(run))
        settings = ", ".join(f"{name} {value:.3g}" for name, value in trial.params.items())
        display.note(f"{ended() + 1} of {trials}, trial {trial.number}: {settings}")

        def report(record: dict[str, Any]) -> None:
            trial.report(record[f"val_{record['score']}"], record["step"])
            if prune and trial.should_prune():
                raise optuna.TrialPruned

        try:
            result = finetune(chosen, quiet=True, test=False, validated=report)
        except FloatingPointError as error:
            display.note("    diverged")
            raise optuna.TrialPruned(str(error)) from error
        value = float(result.validation[result.record["score"]])
        display.note(f"    validation {result.record['score']} {value:.1f}")
        return value

    try:
        while ended() < trials:
            study.optimize(objective, n_trials=1)
            _report(study, out)
            _drop_beaten(study)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"stopped after {ended()} of {trials} trials; the study is in {out}") from stop
    complete = study.get_trials(deepcopy=False, states=(states.COMPLETE,))
    if not complete:
        raise RuntimeError(f"none of {ended()} trials came to a result; lower the learning rates, see {out}")
    best = study.best_trial
    chosen = replace(space(optuna.trial.FixedTrial(best.params), config), out="")
    write_text(out / "chosen.json", json.dumps(asdict(chosen), indent=2) + "\n")
    _report(study, out)
    display.note(f"chosen on validation ({best.value:.1f}): trial {best.number}; settings in {out / 'chosen.json'}")
    display.note(f"next: stochnorm finetune {chosen.data} --settings {out / 'chosen.json'}")
    return Tuned(chosen, float(best.value), ended(), out)


def _import_optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("tuning needs Optuna: pip install 'stochnorm[tune]'") from error
    return optuna


def _check_same(study: optuna.Study, config: FinetuneConfig, out: Path) -> None:
    """A study is one of these settings; raises ValueError where it was made with others."""
    searched = {"lr", "p"}
    fixed = {name: value for name, value in config.result_fields().items() if name not in searched}
    fixed = json.loads(json.dumps(fixed))
    before = study.user_attrs.get("settings")
    if before is None:
        study.set_user_attr("settings", fixed)
        return
    changed = [
        f"{name} was {before.get(name)!r}, now {value!r}" for name, value in fixed.items() if before.get(name) != value
    ]
    if changed:
        raise ValueError(f"cannot go on with the study in {out}: {'; '.join(changed)}; give another --out")


def _run_stopped_again(study: optuna.Study, optuna: Any) -> None:
    """Trials that failed: interrupted by Ctrl-C, or left running by a process of this machine that is no more."""
    again = study.user_attrs.get(_AGAIN, [])
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        host, _, process = trial.user_attrs.get("process", "").rpartition(":")
        if host == socket.gethostname() and not _is_alive(int(process)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.FAIL,)):
        if trial.number not in again:
            again = [*again, trial.number]
            study.set_user_attr(_AGAIN, again)
            study.enqueue_trial(trial.params)


def _is_alive(process: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


def _drop_beaten(study: optuna.Study) -> None:
    """Removes models and checkpoints of all trials that ended but the best one's; their results stay."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name in ("COMPLETE", "PRUNED")]
    complete = [trial for trial in trials if trial.state.name == "COMPLETE" and trial.value is not None]
    best = max(complete, key=lambda trial: trial.value or 0.0, default=None)
    kept = best.user_attrs["run"] if best else None  # two trials may have had the same settings, so the same run
    for trial in trials:
        if trial.user_attrs["run"] != kept:
            run = Run(Path(trial.user_attrs["run"]))
            for file in (run.checkpoint, run.model):
                file.unlink(missing_ok=True)


def _report(study: optuna.Study, out: Path) -> None:
    """``trials.csv`` and a picture, after each trial."""
    from stochnorm.plots import plot_search

    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name in ("COMPLETE", "PRUNED")]
    names = sorted({name for trial in trials for name in trial.params})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "validation", *names, "run"])
    for trial in trials:
        value = "" if trial.value is None else f"{trial.value:.3f}"
        run = trial.user_attrs.get("run", "")
        writer.writerow([trial.number, trial.state.name.lower(), value, *(trial.params.get(n, "") for n in names), run])
    write_text(out / "trials.csv", text.getvalue())
    complete = [
        (trial.params, trial.value) for trial in trials if trial.state.name == "COMPLETE" and trial.value is not None
    ]
    if complete:
        plot_search(complete, out / "search")
