"""What a run is resumed from: its last undamaged checkpoint, with the model that this one had selected."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stochnorm.models.weights import read_notes, read_state_dict
from stochnorm.runs.directory import Run
from stochnorm.training.checkpoint import damage_of, read_checkpoint
from stochnorm.training.selection import selected

__all__ = ["settle"]


def settle(run: Run, select: str) -> None:
    """Put the last undamaged checkpoint of a run and its selected model in their places, where they are not.

    Each write leaves the checkpoint and the model before it under other names, so there is another pair where the last
    one is damaged, or where the process was killed between the two. A run without checkpoint is left as it is.

    Args:
        run: The run, which is held.
        select: The setting `select`.

    Raises:
        ValueError: There is a checkpoint, but none is usable.

    Warns:
        UserWarning: A file is damaged or of another run, and the run continues from an earlier step.
    """
    lost: list[str] = []
    for checkpoint in (run.checkpoint, run.previous_checkpoint):
        if not checkpoint.is_file():
            continue
        if damage := damage_of(checkpoint):
            lost.append(f"{checkpoint} cannot be read ({damage})")
            continue
        state = read_checkpoint(checkpoint)
        if _is_of_another(run, state):
            lost.append(f"{checkpoint} is of a run with other settings")
            continue
        model = _model_of(run, state, select)
        if model is None and state["history"]:
            step = selected(state["history"], select)["step"]
            there = "damaged" if _step_of(run, run.model) is None else "of another run"
            lost.append(f"{run.model}, the model of step {step}, is {there if run.model.is_file() else 'missing'}")
            continue
        if lost:
            warnings.warn(
                f"{'; '.join(dict.fromkeys(lost))}; the run continues from the checkpoint before it, after step "
                f"{state['step']}",
                stacklevel=2,
            )
        for file, place in ((model, run.model), (checkpoint, run.checkpoint)):
            if file not in (None, place):
                file.replace(place)
        return
    if lost:
        raise ValueError(f"{'; '.join(dict.fromkeys(lost))}; start again with --overwrite")


def _model_of(run: Run, state: dict[str, Any], select: str) -> Path | None:
    """Return the undamaged file of the model that a checkpoint's history selects; None if there is none.

    A model of a later step, left by an earlier version that was killed between the two writes, will be written again.
    """
    if not state["history"]:
        return None
    steps = {file: _step_of(run, file) for file in (run.model, run.previous_model)}
    wanted = selected(state["history"], select)["step"]
    exact = [file for file, step in steps.items() if step == wanted]
    later = [file for file, step in steps.items() if step is not None and step > state["step"]]
    return next(iter([*exact, *later]), None)


def _step_of(run: Run, file: Path) -> int | None:
    """Return the step of an undamaged model; None without one, and -1 for one of another run."""
    try:
        read_state_dict(file)
    except (OSError, ValueError):
        return None
    notes = read_notes(file)
    if _is_of_another(run, notes):
        return -1
    step = notes.get("step")
    return step if isinstance(step, int) else None


def _is_of_another(run: Run, written: Mapping[str, Any]) -> bool:
    """Return whether a file was written by a run with other settings; those of earlier versions do not tell."""
    owner, own = written.get("run"), run.identity
    return bool(owner and own and owner != own)
