"""The Optuna study of a search, which several processes and machines may share."""

from __future__ import annotations

import json
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from stochnorm.files import check_lock, sqlite_url
from stochnorm.runs.config import FinetuneConfig, flat
from stochnorm.tuning.space import searched

if TYPE_CHECKING:
    import optuna

__all__ = [
    "best_of",
    "check_owner",
    "check_same",
    "ended",
    "import_optuna",
    "offer",
    "open_study",
    "process_lock",
    "put_back",
    "put_back_killed",
    "state",
    "trials_of",
]


def import_optuna() -> Any:
    """Import Optuna, or raise ModuleNotFoundError with the command that installs it."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("tuning needs Optuna: pip install 'stochnorm[tune]'") from error
    return optuna


def open_study(optuna: Any, out: Path, storage: str, prune: bool) -> optuna.Study:
    """Return the study of a directory, existing or new.

    In the directory's own file the name of the study is fixed, so that the directory can be moved.

    Args:
        optuna: The package.
        out: Directory of the search.
        storage: URL of Optuna's storage; empty: an SQLite file in the directory.
        prune: Stop trials that are worse than the median.

    Raises:
        ValueError: The study cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Processes that start together create the tables at the same time, and some fail.
    for attempt in reversed(range(3)):
        try:
            return optuna.create_study(  # type: ignore[no-any-return]
                study_name=out.resolve().name if storage else "stochnorm",
                storage=storage or sqlite_url(out.resolve() / "study.db"),
                direction="maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=5) if prune else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
        except Exception as error:  # any error: a damaged file, a wrong URL, an unreachable server
            place, remedy = "storage (--storage)", "check the URL, or choose another"
            if not storage:
                place, remedy = str(out / "study.db"), "remove it; finished trials stay in trials/ and are not repeated"
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if not attempt:
                raise ValueError(f"{place}: the study cannot be opened ({reason}); {remedy}") from error
            time.sleep(1)
    raise AssertionError


def check_owner(study: optuna.Study, out: Path) -> None:
    """Raise ValueError if the study in a shared storage belongs to another directory of the same name."""
    file = out / "study.id"
    owner = study.user_attrs.get("owner")
    if owner and not (file.is_file() and file.read_text(encoding="utf-8") == owner["id"]):
        raise ValueError(
            f"the study {study.study_name!r} in the storage belongs to the search in {owner['out']}, not in "
            f"{out.resolve()}; choose an out (--out) with another last part, or another storage (--storage)"
        )
    (out / "trials").mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), file.open("x", encoding="utf-8") as new:  # one of several machines creates it
        new.write(uuid.uuid4().hex)
    study.set_user_attr("owner", {"id": file.read_text(encoding="utf-8"), "out": str(out.resolve())})


def check_same(study: optuna.Study, config: FinetuneConfig, out: Path) -> None:
    """Raise ValueError if the study was started with other settings, except those that are searched."""
    fixed = {name: value for name, value in flat(config.result_fields()).items() if name not in searched(config)}
    fixed = json.loads(json.dumps(fixed))
    begun = any(trial.state.name not in ("WAITING", "FAIL") or trial.intermediate_values for trial in trials_of(study))
    before = flat(study.user_attrs.get("settings", {}))
    if not before or not begun:  # settings may change until the first trial was validated
        study.set_user_attr("settings", fixed)
        return
    changed = [
        f"{name} was {before.get(name)!r}, now {value!r}" for name, value in fixed.items() if before.get(name) != value
    ]
    if changed:
        raise ValueError(f"cannot resume the study in {out}: {'; '.join(changed)}; choose another out (--out)")


def offer(study: optuna.Study, settings: dict[str, float]) -> None:
    """Have the next trial take the settings, unless one was offered them; an earlier version offered fewer of them."""
    before = [trial.system_attrs.get("fixed_params", {}) for trial in study.get_trials(deepcopy=False)]
    if not any(fixed and fixed.items() <= settings.items() for fixed in before):
        study.enqueue_trial(settings)


def put_back_killed(study: optuna.Study, out: Path) -> None:
    """Put back the trials of processes of this machine that were killed; no process holds their lock."""
    for trial in trials_of(study, "RUNNING"):
        host, _, process = trial.user_attrs.get("process", "").rpartition(":")
        if host == socket.gethostname():
            lock = process_lock(out, process)
            with suppress(Timeout):
                with lock:
                    put_back(study, trial)
                Path(lock.lock_file).unlink(missing_ok=True)


def put_back(study: optuna.Study, trial: optuna.Trial | optuna.trial.FrozenTrial) -> None:
    """Give the settings of a trial, and so its directory and checkpoint, to the next trial.

    If several processes try, one of them succeeds.
    """
    try:
        study.tell(trial.number, state=state("FAIL"))
    except (ValueError, RuntimeError):  # another process did it
        return
    study.enqueue_trial(trial.params)


def process_lock(out: Path, process: str) -> FileLock:
    """Return the lock that a process holds while its trials run."""
    lock = out / "trials" / f".{process}.lock"
    check_lock(lock)
    return FileLock(lock, blocking=False)


def trials_of(study: optuna.Study, *names: str) -> list[optuna.trial.FrozenTrial]:
    """Return the trials in one of these states; without names, all trials."""
    return [trial for trial in study.get_trials(deepcopy=False) if not names or trial.state.name in names]


def ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that ended: complete or pruned."""
    return trials_of(study, "COMPLETE", "PRUNED")


def best_of(study: optuna.Study) -> Any:
    """Return the complete trial with the highest score, then the lowest loss; None if there is none."""
    return max(trials_of(study, "COMPLETE"), key=lambda t: (t.value, -t.user_attrs["loss"], -t.number), default=None)


def state(name: str) -> Any:
    """Return Optuna's state of this name, such as `COMPLETE`."""
    return import_optuna().trial.TrialState[name]
