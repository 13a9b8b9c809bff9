"""The display of a comparison: finished runs, the progress of each running one, the time left."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from rich import box
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stochnorm.comparison.executors import Job, Outcome
from stochnorm.runs.directory import Run
from stochnorm.terminal import Terminal
from stochnorm.text import rough_duration

__all__ = ["GridProgress"]


class GridProgress:
    """A live table of the running jobs below one line per finished job; on a pipe, only the lines.

    Args:
        total: Number of jobs.
        done: Number of jobs that were done before.
        what: Name of the jobs, plural.
        quiet: Print nothing.
    """

    def __init__(self, total: int, done: int, what: str, *, quiet: bool = False) -> None:
        self.total, self.done, self._what = total, done, what
        self._console = Terminal(quiet=quiet)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._running: dict[Job, _Running] = {}
        self._failed = 0
        self._start, self._progressed = time.monotonic(), 0.0

    def __enter__(self) -> GridProgress:
        if self.done:
            self._console.print(f"{self.done} of {self.total} {self._what} are already done")
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.update(Text(), refresh=True)
        self._live.stop()

    def started(self, title: str, job: Job) -> None:
        """Add a running job."""
        self._running[job] = _Running(title, job)
        self._running[job].look()
        self._progressed -= self._running[job].fraction  # progress of an earlier start takes no time now

    def ended(self, title: str, job: Job, outcome: Outcome) -> None:
        """Remove a job, and print whether it is done or failed."""
        running = self._running.pop(job)
        if outcome.state in ("busy", "stopped"):
            return
        self._progressed += 1
        if outcome.state == "failed":
            self._failed += 1
            self._console.print(Text.assemble(("failed ", "red"), f"{title}: {outcome.reason}"))
        else:
            running.look()
            self.done += 1
            self._console.print(Text.assemble(("done   ", "green"), title, ("  " + running.note, "dim")))

    def look(self) -> None:
        """Read the progress of the running jobs and show it."""
        for running in self._running.values():
            running.look()
        if self._console.is_terminal:
            self._live.update(self._render(), refresh=True)

    def stopping(self) -> None:
        """Print that the comparison is stopping."""
        self._console.print("stopping: running jobs write their checkpoints", style="dim")

    def _render(self) -> Group:
        table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1))
        for running in list(self._running.values())[:20]:
            table.add_row(Text(running.title), ProgressBar(1.0, running.fraction, width=20), Text(running.note, "dim"))
        under_way = sum(running.fraction for running in self._running.values())
        moved = self._progressed + under_way
        ended = self.done + self._failed
        left = self.total - ended - under_way
        elapsed = time.monotonic() - self._start
        remaining = f"about {rough_duration(elapsed / moved * left)} left" if moved > 0.02 else "time left unknown"
        failures = f", {self._failed} failed" if self._failed else ""
        line = Table.grid(padding=(0, 2))
        counts = f"{self.done} of {self.total} {self._what} done{failures}, {self.total - ended} left"
        line.add_row(ProgressBar(self.total, ended, width=30), counts, Text(remaining, "cyan"))
        return Group(table, line)


class _Running:
    """A running job; its progress is read from its files."""

    def __init__(self, title: str, job: Job) -> None:
        self.title, self.fraction, self.note = title, 0.0, "starting"
        self._job = job
        path = Run.of(job.config).path
        self._file: Path = path / "trials.csv" if job.trials else path / "metrics.jsonl"
        self._seen: object = None

    def look(self) -> None:
        """Read the file of metrics or trials if it has changed."""
        try:
            stamp = self._file.stat().st_mtime_ns
            if stamp == self._seen:
                return
            lines = self._file.read_text(encoding="utf-8").splitlines()
            history = [] if self._job.trials else Run(self._file.parent).read_metrics()
        except (OSError, ValueError):
            return
        self._seen = stamp
        if self._job.trials:
            self.fraction, self.note = (len(lines) - 1) / self._job.trials, f"{len(lines) - 1} trials"
        elif history:
            record = history[-1]
            self.fraction = record["step"] / self._job.config.steps
            score = record.get(f"val_{record['score']}")
            value = "" if score is None else f"  val {score:.1f}"
            self.note = f"step {record['step']}  loss {record['train_loss']:.3f}{value}"
