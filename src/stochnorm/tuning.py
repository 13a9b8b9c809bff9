"""Hyper-parameters chosen on validation, by Optuna; the test split stays shut."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochnorm.config import FinetuneConfig
from stochnorm.data import read_source
from stochnorm.data.splits import derive_seed
from stochnorm.display import Display
from stochnorm.files import write_text
from stochnorm.job import finetune
from stochnorm.methods import check_method
from stochnorm.runs import Run

if TYPE_CHECKING:
    import optuna

__all__ = ["Tuned", "search_space", "searched", "tune"]


@dataclass(frozen=True)
class Tuned:
    """What a search came to."""

    config: FinetuneConfig
    """The chosen settings, to fine-tune and test with."""
    value: float
    """Validation score of the chosen trial, in percent; the best of several, so optimistic. Ties go by the loss."""
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
    killed go on from their checkpoints. Several processes may work on one study: each calls ``tune`` with the same
    settings and directory, and on several machines with a storage that all reach (any URL that Optuna takes).

    The first trial has the settings as they are given, so that a search of any budget knows their score.

    Args:
        config: Data, method and all that is not searched; ``out`` is the search's directory.
        trials: In all, those of earlier calls included. (Of n processes, the last ones may end n - 1 more.)
        storage: URL of Optuna's storage, where the study goes by the name of the directory; empty: the SQLite file.
        prune: Stop trials that are worse than the median at the same step, after five whole ones.
        space: Chooses the settings of a trial.
        quiet: Print nothing.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
        ValueError: The study there was made with other settings, or cannot be opened; or what fine-tuning says of data
            and settings.
        FileExistsError: The directory holds other files.
        FloatingPointError: No trial ended with a result.
        KeyboardInterrupt: Stopped; the same call goes on.

    Example:
        >>> tuned = tune(FinetuneConfig("photos/", method="stochnorm+l2sp"), trials=30)  # doctest: +SKIP
        >>> finetune(tuned.config).test["top1"]  # doctest: +SKIP
        89.2
    """
    optuna = _import_optuna()
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("a trial trains in one process; start tune without torchrun, several times to share the work")
    config = replace(config, resume=False, overwrite=False)
    out = Path(config.out) if config.out else Run.of(config).path.with_name(Run.of(config).path.name + "-tune")
    if not (out / "trials").is_dir():  # what is wrong with data or place is said before there is anything
        Run(out).check(replace(config, out=str(out)))
        read_source(config.data)
        (out / "trials").mkdir(parents=True)
    display = Display(quiet=quiet)
    study = _open(optuna, out, storage, prune)
    _put_back_killed(study)
    _check_same(study, config, out)
    study.enqueue_trial(searched(config), skip_if_exists=True)

    try:
        while (count := len(_ended(study))) < trials:
            trial = study.ask()
            trial.set_user_attr("process", f"{socket.gethostname()}:{os.getpid()}")
            # By the trial's number, so that processes that start together draw apart. Drawn one by one, not jointly, as
            # the number is only known now.
            seed = derive_seed("tune", config.seed, trial.number) % 2**32
            study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False)
            chosen = space(trial, config)
            settings = ", ".join(f"{name} {value:.3g}" for name, value in trial.params.items())
            display.note(f"{count + 1} of {trials}, trial {trial.number}: {settings}")
            try:
                ending = _run(trial, chosen, out, optuna.TrialPruned)
            except BaseException:
                _put_back(study, trial)
                raise
            display.note(f"    {ending}")
            _report(study, out)
            _drop_beaten(study, out)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"stopped after {len(_ended(study))} of {trials} trials; the study is in {out}"
        ) from stop
    best = _best(study)
    if best is None:
        raise FloatingPointError(
            f"none of {len(_ended(study))} trials came to a result, see {out / 'trials.csv'}; the same command with "
            f"more --trials goes on"
        )
    _report(study, out)
    chosen = replace(space(optuna.trial.FixedTrial(best.params), config), out="")
    write_text(out / "chosen.json", json.dumps(asdict(chosen), indent=2) + "\n")
    display.note(f"chosen on validation ({best.value:.1f}): trial {best.number}; settings in {out / 'chosen.json'}")
    again = ["stochnorm", "finetune", chosen.data, "--settings", str(out / "chosen.json")]
    display.note(f"next: {shlex.join(again)}")
    return Tuned(chosen, float(best.value), len(_ended(study)), out)


def searched(config: FinetuneConfig) -> dict[str, float]:
    """What :func:`search_space` chooses, by the names it gives them; all of them, whichever the method looks at."""
    return {
        "lr": config.lr,
        "p": config.p,
        "l2sp.alpha": config.l2sp.alpha,
        "delta.alpha": config.delta.alpha,
        "bss.eta": config.bss.eta,
    }


def _run(trial: optuna.Trial, chosen: FinetuneConfig, out: Path, pruned: type[Exception]) -> str:
    """Fine-tune without a test, and tell the study; returns how it ended, in words."""
    name = Run.of(replace(chosen, out="")).path.name
    trial.set_user_attr("run", f"trials/{name}")
    path = out / "trials" / name

    def report(record: dict[str, Any]) -> None:
        trial.report(record[f"val_{record['score']}"], record["step"])
        if trial.should_prune():
            raise pruned(f"pruned after step {record['step']} of {chosen.steps}")

    try:
        resume = (path / "config.json").is_file()
        settings = replace(chosen, out=str(path), resume=resume, report=False, log="none")  # trials.csv tells of them
        result = finetune(settings, quiet=True, test=False, validated=report)
    except (FloatingPointError, pruned) as error:
        trial.study.tell(trial, state=_state("PRUNED"))
        return "diverged" if isinstance(error, FloatingPointError) else str(error)
    value = float(result.validation[result.record["score"]])
    trial.set_user_attr("loss", float(result.validation["loss"]))
    trial.study.tell(trial, value)
    return f"validation {result.record['score']} {value:.1f}"


def _open(optuna: Any, out: Path, storage: str, prune: bool) -> optuna.Study:
    """The study, as it was left or new. In the directory's own file its name is fixed, so that it can be moved."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for attempt in reversed(range(3)):  # processes that start together make the tables at once, and some fail
        try:
            return optuna.create_study(  # type: ignore[no-any-return]
                study_name=out.resolve().name if storage else "stochnorm",
                storage=storage or f"sqlite:///{out.resolve() / 'study.db'}",
                direction="maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=5) if prune else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
        except Exception as error:  # whatever a driver makes of a damaged file, a wrong URL, a server that is away
            place = "--storage" if storage else str(out / "study.db")
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if not attempt:
                raise ValueError(f"{place}: the study cannot be opened ({reason}); mend it, or give another") from error
            time.sleep(1)
    raise AssertionError


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
    begun = any(trial.state.name not in ("WAITING", "FAIL") or trial.intermediate_values for trial in _trials(study))
    before = study.user_attrs.get("settings")
    if before is None or not begun:  # a mistake that the first trial showed may be mended
        study.set_user_attr("settings", fixed)
        return
    changed = [
        f"{name} was {before.get(name)!r}, now {value!r}" for name, value in fixed.items() if before.get(name) != value
    ]
    if changed:
        raise ValueError(f"cannot go on with the study in {out}: {'; '.join(changed)}; give another --out")


def _put_back_killed(study: optuna.Study) -> None:
    """Trials that are running by a process of this machine that is no more."""
    for trial in _trials(study, "RUNNING"):
        host, _, process = trial.user_attrs.get("process", "").rpartition(":")
        if host == socket.gethostname() and not _is_alive(int(process)):
            _put_back(study, trial)


def _put_back(study: optuna.Study, trial: optuna.Trial | optuna.trial.FrozenTrial) -> None:
    """The next to ask gets its settings, so its directory and checkpoint. Of several processes one succeeds."""
    try:
        study.tell(trial.number, state=_state("FAIL"))
    except (ValueError, RuntimeError):  # it has been told already
        return
    study.enqueue_trial(trial.params)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _state(name: str) -> Any:
    return _import_optuna().trial.TrialState[name]


def _trials(study: optuna.Study, *names: str) -> list[optuna.trial.FrozenTrial]:
    """Those in one of the states; without names, all."""
    return [trial for trial in study.get_trials(deepcopy=False) if not names or trial.state.name in names]


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return _trials(study, "COMPLETE", "PRUNED")


def _best(study: optuna.Study) -> Any:
    """The complete trial of the highest score, of several the one of the lowest loss; None where none is."""
    return max(_trials(study, "COMPLETE"), key=lambda t: (t.value, -t.user_attrs["loss"], -t.number), default=None)


def _drop_beaten(study: optuna.Study, out: Path) -> None:
    """Removes models and checkpoints of all trials that ended but the best one's; their results stay."""
    best = _best(study)
    kept = best.user_attrs["run"] if best else None  # two trials may have had the same settings, so the same run
    for trial in _ended(study):
        if trial.user_attrs["run"] != kept:
            run = Run(out / trial.user_attrs["run"])
            for file in (run.checkpoint, run.model):
                file.unlink(missing_ok=True)


def _report(study: optuna.Study, out: Path) -> None:
    """``trials.csv`` and a picture, after each trial."""
    from stochnorm.plots import plot_search

    trials = _ended(study)
    names = sorted({name for trial in trials for name in trial.params})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "validation", *names, "run"])
    for trial in trials:
        value = "" if trial.value is None else f"{trial.value:.3f}"
        params = [round(x, 12) if isinstance(x := trial.params.get(name, ""), float) else x for name in names]
        writer.writerow([trial.number, trial.state.name.lower(), value, *params, trial.user_attrs["run"]])
    write_text(out / "trials.csv", text.getvalue())
    best = _best(study)
    if best is not None:
        points = [(trial.params, float(trial.value)) for trial in _trials(study, "COMPLETE") if trial.value is not None]
        plot_search(points, (best.params, best.value), out / "search")
