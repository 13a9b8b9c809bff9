"""Shared code of the benchmarks: timing side by side, fresh processes, peak memory, and the result files."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from stochnorm.files import write_text
from stochnorm.runs.hardware import environment, launch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"


@dataclass(frozen=True)
class Timing:
    """The rounds of one function."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third; both the value of a single round."""
        low, _, high = statistics.quantiles(self.seconds * 2 if len(self.seconds) == 1 else self.seconds, n=4)
        return low, high

    def spread(self, scale: float = 1.0, form: str = ".2f") -> str:
        """For a table: the quartiles."""
        return " to ".join(format(scale * value, form) for value in self.quartiles)

    def over(self, other: Timing) -> float:
        """Ratio of the medians."""
        return self.median / other.median


def side_by_side(
    functions: Sequence[Callable[[], object]],
    rounds: int,
    *,
    seconds: float = 0.0,
    warm_up: int = 1,
    device: str = "cpu",
) -> list[Timing]:
    """Time functions that take turns, in a random order each round.

    So a slow spell of the machine, or what the one before left in the caches and the allocator, hits all of them alike.

    Args:
        functions: What to time.
        rounds: The least number of them.
        seconds: More rounds follow until so many have passed.
        warm_up: Rounds that do not count.
        device: Of which type the work is; a GPU is waited for.
    """
    records: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while len(records[0]) < rounds + warm_up or time.perf_counter() < end:
        for function, record in random.sample(list(zip(functions, records, strict=True)), len(functions)):
            start = time.perf_counter()
            function()
            if device == "cuda":
                torch.cuda.synchronize()
            record.append(time.perf_counter() - start)
    return [Timing(record[warm_up:]) for record in records]


class Cost(NamedTuple):
    """The cost of a call."""

    seconds: float
    grown: float
    """Gigabytes (1e9 bytes) of anonymous memory that it added to its process, at its peak."""
    peak: float
    """Gigabytes of the whole process then, Python and PyTorch included."""
    value: Any
    """Its return value."""


def cost(function: Callable[..., Any], *arguments: Any) -> Cost:
    """Call a function and watch the process meanwhile.

    Memory is anonymous memory, read every few milliseconds, because pages of mapped files are resident, too, but the
    system can take them back. Child processes count with the pages that only they use.
    """
    before = most = _anonymous()
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, _anonymous())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    try:
        value = function(*arguments)
        seconds = time.perf_counter() - start
    finally:
        done.set()
        watcher.join()
    most = max(most, _anonymous())
    return Cost(seconds, (most - before) / 1e9, most / 1e9, value)


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a function in a fresh process, forked so that all imports are done.

    The caller must not have computed anything before, because the threads of OpenMP do not survive a fork: a script
    that measures in child processes measures only there.
    """
    with processes(1) as pool:
        return pool.submit(function, *arguments).result()


def processes(count: int) -> ProcessPoolExecutor:
    """Return a pool of fresh processes, as in `in_child`."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("fork"))


@dataclass(frozen=True)
class Goal:
    """A goal and its measurement."""

    what: str
    goal: str
    measured: str
    met: bool


def at_most(limit: float, what: str, value: float, unit: str = "") -> Goal:
    return Goal(what, f"at most {limit:.2f}{unit}", f"{value:.3f}{unit}", value <= limit)


def at_least(limit: float, what: str, value: float, unit: str = "") -> Goal:
    return Goal(what, f"at least {limit:.2f}{unit}", f"{value:.3f}{unit}", value >= limit)


@dataclass
class Outcome:
    """A table and the goals that it measures."""

    title: str
    columns: Sequence[str]
    notes: str = ""
    """Notes on reading it, in Markdown."""
    rows: list[Sequence[str]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    """Names of pictures next to the JSON file."""
    detail_columns: Sequence[str] = ()
    details: list[Sequence[str]] = field(default_factory=list)
    """Rows of a second table, which the page folds."""

    def save(self, path: Path) -> None:
        """Write a JSON file, for readme.py."""
        content = asdict(self) | {"command": _command(), "conditions": conditions()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def write(self, path: Path) -> None:
        """Write a JSON file and print the table."""
        self.save(path)
        console = Console(width=130)
        table = Table(*self.columns, title=self.title)
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for goal in self.goals:
            verdict = "met" if goal.met else "NOT MET"
            console.print(f"{verdict}: {goal.what}: {goal.measured} ({goal.goal})", highlight=False, markup=False)


def arguments(description: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser with the option `--out`; a script adds its options."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
    return parser


def conditions() -> dict[str, Any]:
    """Return the machine, the versions and the settings of the measurement."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "machine": f"{models[0] if models else platform.processor()}, {len(os.sched_getaffinity(0))} cores",
        **{name: value for name, value in environment(launch()).items() if name != "precision"},  # by network
        "commit": (_git("rev-parse", "--short", "HEAD") or "unknown") + (" and changes" if _git(*_CHANGED) else ""),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


# Not what the benchmarks write themselves, and not what git does not know.
_CHANGED = ("status", "--porcelain", "--untracked-files=no", ".", ":!benchmarks/results", ":!benchmarks/README.md")


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    except OSError:  # a machine without git
        return ""


def _command() -> str:
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script
    return shlex.join(["python", str(name), *sys.argv[1:]])


def _anonymous() -> int:
    """Bytes of this process and of those that it started."""
    total = _bytes("self", "status", "RssAnon:")
    started = _children("self")
    for process in started:  # grows meanwhile
        total += _bytes(process, "smaps_rollup", "Private_Dirty:")
        started += _children(process)
    return total


def _bytes(process: str, file: str, name: str) -> int:
    try:
        return int(Path(f"/proc/{process}/{file}").read_text().partition(name)[2].split()[0]) * 1024
    except (OSError, IndexError):  # it has ended
        return 0


def _children(process: str) -> list[str]:
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        return [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
