"""The checkpoint of a run, from which it resumes bit for bit."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from stochnorm.errors import ran_out
from stochnorm.files import atomic_path, set_aside
from stochnorm.runs.directory import Run
from stochnorm.runs.precision import Precision

__all__ = ["begun_with", "damage_of", "load_checkpoint", "read_checkpoint", "save_checkpoint"]


def save_checkpoint(fabric: Fabric, run: Run, state: dict[str, Any]) -> None:
    """Write the state atomically, and keep the one before it. All processes call it; the first one writes.

    What is written is read back before it takes the place of the earlier checkpoint.

    Raises:
        OSError: It cannot be written, or read back.
    """
    with atomic_path(run.checkpoint) if fabric.is_global_zero else nullcontext(run.checkpoint) as path:
        fabric.save(path.absolute(), state)  # Lightning expands ~, and takes what begins with http for a URL
        if fabric.is_global_zero:
            if damage := damage_of(path):
                raise OSError(errno.EIO, f"it cannot be read back ({damage})")
            set_aside(run.checkpoint, run.previous_checkpoint)


def damage_of(checkpoint: Path) -> str:
    """Return what is wrong with a checkpoint's file; empty if all of its bytes are those that were written.

    PyTorch writes a CRC-32 of each tensor, and does not look at it when it reads them.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            return f"{damaged} is damaged"
        state = read_checkpoint(checkpoint)
        missing = {"step", "history", "sums", "processes", "model", "optimizer"} - state.keys()
    except Exception as error:  # a damaged file can raise anything
        if ran_out(error):
            raise
        return (str(error) or type(error).__name__).splitlines()[0]
    return f"{sorted(missing)[0]} is missing" if missing else ""


def read_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """Return the content of a checkpoint; its tensors are read when they are used, and need no GPU."""
    state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)
    return state


def begun_with(run: Run, earlier: Callable[[], Precision]) -> Precision | None:
    """Return the precision that a run began with, which it keeps; None without a readable checkpoint.

    Only this is read, not the tensors. (A damaged checkpoint is an error of `load_checkpoint`.)

    Args:
        run: The run.
        earlier: Returns the precision of runs that began before checkpoints told it.
    """
    for checkpoint in (run.checkpoint, run.previous_checkpoint):  # the second: while the first process settles
        try:
            kept = read_checkpoint(checkpoint).get("begun_with")
            return earlier() if kept is None else Precision(**kept)
        except Exception as error:  # a damaged file can raise anything
            if ran_out(error):
                raise

    return None


def load_checkpoint(fabric: Fabric, run: Run, stateful: dict[str, Any]) -> dict[str, Any]:
    """Restore model, optimizer and precision, and return the rest of the state.

    The optimizer keeps its implementation: the file may come from another kind of device.

    Raises:
        ValueError: The file is damaged, or was written by another number of processes.
    """
    optimizer = stateful["optimizer"]
    own = {name: optimizer.defaults[name] for name in ("fused", "capturable") if name in optimizer.defaults}
    try:
        state = fabric.load(run.checkpoint.absolute(), dict(stateful), weights_only=True)
        processes = state["processes"]
    except Exception as error:  # a damaged file can raise anything
        if ran_out(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{run.checkpoint} cannot be read ({reason}); start again with --overwrite") from error
    for group in optimizer.param_groups:
        group.update(own)
    for parameter, values in optimizer.state.items():
        if "step" in values:  # AdamW counts on the device if its kernel is fused
            values["step"] = values["step"].to(parameter.device if own["fused"] else "cpu", torch.float32)
    if processes != fabric.world_size:
        raise ValueError(
            f"cannot resume {run.path} with {fabric.world_size} processes: each draws its own masks and images, and "
            f"the run had {processes}; use as many, or start again with --overwrite"
        )
    return state
