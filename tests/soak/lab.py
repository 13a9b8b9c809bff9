"""Images, undisturbed runs, and commands that are disturbed: what every kind of fault needs."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import stochnorm.training.finetune
import stochnorm.tuning.tune  # noqa: F401 (each command begins with it)
from stochnorm.cli.main import main as stochnorm_main
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run

__all__ = ["LIMIT", "TINY", "Ended", "Lab"]

LIMIT = 240.0  # seconds until a command counts as one that hangs
TINY = [
    "--backbone", "test_resnet", "--weights", "random", "--image-size", "32", "--batch-size", "8", "--steps", "24",
    "--eval-every", "4", "--precision", "32", "--device", "cpu", "--cache", "disk",
]  # fmt: skip


class Ended(NamedTuple):
    """A command that has ended."""

    status: int
    """Exit status; negative: the number of the signal that ended it."""
    said: str
    """Standard error."""

    @property
    def in_words(self) -> bool:
        """Whether it ended well, or with lines that say why."""
        return self.status in (0, 130) or (
            self.status == 1 and "error: " in self.said and "Traceback" not in self.said and "Error: " not in self.said
        )


class Lab:
    """Images, undisturbed runs, and commands that are disturbed.

    Args:
        folder: An empty folder.
        seed: Of all random choices.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.draw = folder, random.Random(seed)  # noqa: S311
        self.photos, self.cache = folder / "photos", folder / "cache"
        self._number = 0
        noise = np.random.default_rng(0)
        for name, colour in (("blue", 40), ("green", 120), ("red", 200)):
            (self.photos / name).mkdir(parents=True)
            for i in range(12):
                pixels = (colour + noise.integers(-30, 31, (40, 40, 3))).clip(0, 255).astype("uint8")
                Image.fromarray(pixels).save(self.photos / name / f"{i}.png")
        self.whole = Run(folder / "whole")
        began = time.monotonic()
        ended = self.run(self.finetune(self.whole.path))
        assert ended.status == 0, ended.said
        self.seconds = time.monotonic() - began

    def finetune(self, out: Path) -> list[str]:
        """Return the command that begins a run, or goes on with it."""
        again = ["--resume"] if (out / "config.json").is_file() else []
        return ["finetune", str(self.photos), "--method", "stochnorm", *TINY, "--no-report", "--out", str(out), *again]

    def place(self) -> Path:
        """Return a new folder's name."""
        self._number += 1
        return self.folder / f"run-{self._number}"

    def start(self, arguments: list[str], before: Callable[[], object] = lambda: None) -> tuple[int, Path]:
        """Start a command in a process of its own; return its number and the file of its standard error."""
        said = self.folder / f"said-{self._number}-{time.monotonic_ns()}"
        process = os.fork()
        if process:
            return process, said
        status = 1
        try:
            os.setsid()
            os.chdir(self.folder)
            os.environ["XDG_CACHE_HOME"] = str(self.cache)
            for number, name in ((0, os.devnull), (1, os.devnull), (2, str(said))):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            before()
            status = stochnorm_main(arguments)
            sys.stderr.flush()
        except KeyboardInterrupt:  # before the command has begun
            status = 130
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException as error:
            with contextlib.suppress(BaseException):
                os.write(2, f"Traceback: {type(error).__name__}: {error}".encode())
        finally:
            os._exit(status)

    def wait(self, process: int, said: Path) -> Ended:
        """Wait for a command; one that hangs is killed, which counts as a loss."""
        deadline = time.monotonic() + LIMIT
        while True:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                return Ended(-signal.SIGKILL, "it hung")
            time.sleep(0.005)
        text = said.read_text(errors="replace") if said.exists() else ""
        said.unlink(missing_ok=True)
        return Ended(os.waitstatus_to_exitcode(status), text)

    def run(self, arguments: list[str], before: Callable[[], object] = lambda: None) -> Ended:
        """Do a command."""
        return self.wait(*self.start(arguments, before))

    def moment(self) -> None:
        """Wait for a random moment of a run."""
        time.sleep(self.draw.uniform(0, self.seconds))

    def finish(self, out: Path) -> str:
        """Go on with a run, undisturbed; return what differs from the undisturbed one, empty if nothing."""
        ended = self.run(self.finetune(out))
        if ended.status:
            return f"it cannot be resumed: {ended.said.strip()}"
        return self.difference(Run(out))

    def difference(self, run: Run, whole: Run | None = None) -> str:
        """Return what differs from an undisturbed run."""
        whole = whole or self.whole
        first, second = read_state_dict(whole.model), read_state_dict(run.model)
        if not all(torch.equal(first[key], second[key]) for key in first):
            return "other weights"
        if run.read_result()["test"] != whole.read_result()["test"]:
            return "another test result"
        if [r["step"] for r in run.read_metrics()] != [r["step"] for r in whole.read_metrics()]:
            return "other steps"
        half = [path.name for path in run.path.iterdir() if path.name.startswith(".")]
        return f"half-written files {half}" if half else ""
