"""Run a function, or a command, in several processes that form a group; nothing here can wait for ever."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def _child(file: str, name: str, rank: int, size: int, folder: Path, seconds: float, arguments: Any) -> None:
    torch.set_num_threads(1)
    try:
        function = runpy.run_path(file)[name]  # pytest's name of the module is none to import
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size, timeout=timedelta(seconds=seconds)
        )
        answer = function(rank, *arguments)
        dist.destroy_process_group()  # else its threads abort the process at times
    except Exception:
        answer = traceback.format_exc()
    torch.save(answer, folder / f"{rank}.part")
    (folder / f"{rank}.part").rename(folder / f"{rank}.pt")


def together(
    function: Callable[..., Any], folder: Path, *arguments: Any, size: int = 2, seconds: float = 60, wait: float = 120
) -> list[Any]:
    """Return what `function(rank, *arguments)` returns in each process; the traceback of an error; None if it died.

    Args:
        seconds: Time after which a collective operation gives up.
        wait: Time after which the processes are killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = inspect.getfile(function), function.__name__
    context = multiprocessing.get_context("spawn")
    children = [
        context.Process(target=_child, args=(*named, rank, size, folder, seconds, arguments), daemon=True)
        for rank in range(size)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(wait)
        if child.is_alive():
            child.kill()
            child.join(wait)
    answers = [folder / f"{rank}.pt" for rank in range(size)]
    return [torch.load(path, weights_only=False) if path.is_file() else None for path in answers]


def torchrun(*arguments: object) -> str:
    """Run a script, or `-m` and a module, in two processes of one thread each; return what they print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
