"""Commands and their processes are killed, stopped, or begun twice."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lab import LIMIT, TINY, Lab

from stochnorm.runs.directory import Run

__all__ = ["comparisons", "imports", "searches", "signals", "two", "workers"]


def signals(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """Up to three signals at random moments of each run."""
    for _ in range(rounds):
        out, count = lab.place(), lab.draw.randint(1, 3)
        for _ in range(count):
            process, said = lab.start(lab.finetune(out))
            lab.moment()
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, lab.draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
            ended = lab.wait(process, said)
            if ended.status not in (0, 130, -signal.SIGKILL, -signal.SIGTERM):
                yield f"status {ended.status}: {ended.said}", 1
        yield lab.finish(out), count
        shutil.rmtree(out, ignore_errors=True)


def searches(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """Signals at random moments of `tune`; the choice and its trials are those of an undisturbed search."""

    def command(out: Path) -> list[str]:
        options = [*TINY, "--method", "stochnorm", "--steps", "8", "--trials", "2", "--no-prune", "--out", str(out)]
        return ["tune", str(lab.photos), *options]

    whole = lab.place()
    began = time.monotonic()
    assert lab.run(command(whole)).status == 0
    seconds = time.monotonic() - began
    for _ in range(rounds):
        out, count = lab.place(), lab.draw.randint(1, 2)
        for _ in range(count):
            process, said = lab.start(command(out))
            time.sleep(lab.draw.uniform(0, seconds))
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, lab.draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
            lab.wait(process, said)
        ended = lab.run(command(out))
        same = ended.status == 0 and (out / "chosen.json").read_bytes() == (whole / "chosen.json").read_bytes()
        lines = len((out / "trials.csv").read_text().splitlines()) if same else 0
        yield ("" if same and lines == 3 else f"{lines} lines, {ended}"), count


def comparisons(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """Signals at random moments of `compare`, whose workers are processes too."""

    def command(out: Path) -> list[str]:
        methods = ["--methods", "vanilla,stochnorm", "--seeds", "1", "--no-probe", "--workers", "1", "--threads", "1"]
        return ["compare", str(lab.photos), *methods, *TINY, "--out", str(out)]

    whole = lab.place()
    began = time.monotonic()
    assert lab.run(command(whole)).status == 0
    seconds = time.monotonic() - began
    for _ in range(rounds):
        out = lab.place()
        process, said = lab.start(command(out))
        time.sleep(lab.draw.uniform(0, seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, lab.draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        lab.wait(process, said)
        time.sleep(1)  # a worker whose comparison was killed writes its checkpoint and ends
        ended, faults = lab.run(command(out)), []
        for one in sorted((whole / "runs").glob("*/model.safetensors")):
            again = Run(out / "runs" / one.parent.name)
            faults.append(lab.difference(again, Run(one.parent)) if again.result.is_file() else f"missing: {ended}")
        yield "; ".join(filter(None, faults)), 1


def imports(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """Signals before a command has begun: while the interpreter, and what the command needs, is loaded."""

    def command(out: Path) -> list[str]:
        return [sys.executable, "-m", "stochnorm", *lab.finetune(out)]

    environment = os.environ | {"XDG_CACHE_HOME": str(lab.cache)}
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "cwd": lab.folder, "env": environment}
    began = time.monotonic()
    subprocess.run(command(lab.place()), check=True, stderr=subprocess.DEVNULL, timeout=LIMIT, **silent)
    seconds = time.monotonic() - began - lab.seconds
    for _ in range(rounds):
        out = lab.place()
        with subprocess.Popen(command(out), stderr=subprocess.PIPE, text=True, **silent) as process:
            time.sleep(lab.draw.uniform(0.3, seconds))  # before, there is only Python itself
            process.send_signal(lab.draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGINT]))
            _, said = process.communicate(timeout=LIMIT)
        right = process.returncode in (0, 130, -signal.SIGKILL, -signal.SIGTERM) and "Traceback" not in said
        yield (lab.finish(out) if right else f"status {process.returncode}: {said}"), 1


def workers(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """A process that loads images is killed; the command says so, or had no more need of it."""
    for _ in range(rounds):
        out = lab.place()
        process, said = lab.start([*lab.finetune(out), "--workers", "2", "--cache", "none"])
        killed, deadline = 0, time.monotonic() + LIMIT
        time.sleep(lab.draw.uniform(0, lab.seconds))
        while not killed and time.monotonic() < deadline and not os.waitid(os.P_PID, process, _LOOK):
            for child in lab.draw.sample(children := _children(process), len(children)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, lab.draw.choice([signal.SIGKILL, signal.SIGSEGV]))
                    killed = 1
                break
        ended = lab.wait(process, said)
        told = "" if ended.in_words else f"{ended}"
        yield told or lab.finish(out), killed


_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


def _children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(status.parent.name))
    return found


def two(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """Two commands on one directory: one works, the other says so."""
    for _ in range(rounds):
        out = lab.place()
        first = lab.start(lab.finetune(out))
        time.sleep(lab.draw.uniform(0, lab.seconds / 2))
        second = lab.start(lab.finetune(out))
        ends = [lab.wait(*first), lab.wait(*second)]
        fault = "" if all(ended.in_words for ended in ends) else f"{ends}"
        yield fault or lab.finish(out), 1
