"""The study of a search, which several processes and machines may share, as Optuna keeps it."""

from __future__ import annotations

import json
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

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
    "open_study",
    "process_lock",
    "put_back",
    "put_back_killed",
    "state",
    "trials_of",
]


def import_optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("tuning needs Optuna: pip install 'stochnorm[tune]'") from error
    return optuna


def open_study(optuna: Any, out: Path, storage: str, prune: bool) -> optuna.Study:
    """The study, as it was left or new. In the directory's own file its name is fixed, so that it can be moved."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for attempt in reversed(range(3)):  # machines that start together make the tables at once, and some fail
        try:
            return optuna.create_study(  # type: ignore[no-any-return]
                study_name=out.resolve().name if storage else "stochnorm",
                storage=storage or f"sqlite:///{out.resolve() / 'study.db'}",
                direction="maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=5) if prune else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
        except Exception as error:  # whatever a driver makes of a damaged file, a wrong URL, a server that is away
            place, mend = "--storage", "mend it, or give another"
            if not storage:
                place, mend = str(out / "study.db"), "remove it: finished trials stay in trials/ and are not repeated"
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if not attempt:
                raise ValueError(f"{place}: the study cannot be opened ({reason}); {mend}") from error
            time.sleep(1)
    raise AssertionError


def check_owner(study: optuna.Study, out: Path) -> None:
    """Studies of a storage go by the names of directories: raises ValueError where it is that of another one."""
    file = out / "study.id"
    owner = study.user_attrs.get("owner")
    if owner and not (file.is_file() and file.read_text(encoding="utf-8") == owner["id"]):
        raise ValueError(
            f"the study {study.study_name!r} in --storage is of the search in {owner['out']}, not of {out.resolve()}; "
            "give an --out with another last part, or another --storage"
        )
    (out / "trials").mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), file.open("x", encoding="utf-8") as new:  # one of several machines makes it
        new.write(uuid.uuid4().hex)
    study.set_user_attr("owner", {"id": file.read_text(encoding="utf-8"), "out": str(out.resolve())})


def check_same(study: optuna.Study, config: FinetuneConfig, out: Path) -> None:
    """A study is one of these settings, wherever its trials start; raises ValueError where it was made with others."""
    fixed = {name: value for name, value in flat(config.result_fields()).items() if name not in searched(config)}
    fixed = json.loads(json.dumps(fixed))
    begun = any(trial.state.name not in ("WAITING", "FAIL") or trial.intermediate_values for trial in trials_of(study))
    before = flat(study.user_attrs.get("settings", {}))
    if not before or not begun:  # a mistake that the first trial showed may be mended
        study.set_user_attr("settings", fixed)
        return
    changed = [
        f"{name} was {before.get(name)!r}, now {value!r}" for name, value in fixed.items() if before.get(name) != value
    ]
    if changed:
        raise ValueError(f"cannot go on with the study in {out}: {'; '.join(changed)}; give another --out")


def put_back_killed(study: optuna.Study, out: Path) -> None:
    """Trials that are running by a process of this machine that is no more: nobody holds its lock."""
    for trial in trials_of(study, "RUNNING"):
        host, _, process = trial.user_attrs.get("process", "").rpartition(":")
        if host == socket.gethostname():
            lock = process_lock(out, process)
            with suppress(Timeout):
                with lock:
                    put_back(study, trial)
                Path(lock.lock_file).unlink(missing_ok=True)


def put_back(study: optuna.Study, trial: optuna.Trial | optuna.trial.FrozenTrial) -> None:
    """The next to ask gets its settings, so its directory and checkpoint. Of several processes one succeeds."""
    try:
        study.tell(trial.number, state=state("FAIL"))
    except (ValueError, RuntimeError):  # it has been told already
        return
    study.enqueue_trial(trial.params)


def process_lock(out: Path, process: str) -> FileLock:
    """What a process holds for as long as its trials run."""
    return FileLock(out / "trials" / f".{process}.lock", blocking=False)


def trials_of(study: optuna.Study, *names: str) -> list[optuna.trial.FrozenTrial]:
    """Those in one of the states; without names, all."""
    return [trial for trial in study.get_trials(deepcopy=False) if not names or trial.state.name in names]


def ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return trials_of(study, "COMPLETE", "PRUNED")


def best_of(study: optuna.Study) -> Any:
    """The complete trial of the highest score, of several the one of the lowest loss; None where none is."""
    return max(trials_of(study, "COMPLETE"), key=lambda t: (t.value, -t.user_attrs["loss"], -t.number), default=None)


def state(name: str) -> Any:
    return import_optuna().trial.TrialState[name]
