"""Injects faults into runs at random moments, and compares what comes out with undisturbed runs, bit for bit.

`make soak` runs it and prints the table of docs/reliability.md; `tests/soak/test_soak.py` runs a part of it. A command
is a process that is forked from this one, so that it begins at once; it is the same command line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

import stochnorm.training.finetune
import stochnorm.tuning.tune  # noqa: F401 (each command begins with it)
from stochnorm.cli.main import main as stochnorm_main
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run

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


class Tally:
    """Counts of one kind of fault."""

    def __init__(self) -> None:
        self.injected = self.lost = 0
        self.why: list[str] = []

    def add(self, fault: str, *, injected: int = 1) -> None:
        """Count faults; a text says what was lost by them."""
        self.injected += injected
        if fault:
            self.lost += 1
            self.why.append(fault)


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


def full_disk(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """A file may not grow beyond a random size: each write that is larger fails, as on a full disk."""
    largest = int(lab.whole.model.stat().st_size * 2.4)
    for _ in range(rounds):
        out = lab.place()
        size = int(largest ** lab.draw.uniform(0.2, 1))

        def limit(size: int = size) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        ended = lab.run(lab.finetune(out), limit)
        told = "" if ended.in_words else f"{size} bytes: {ended}"
        yield told or lab.finish(out), 1


def memory(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """The address space may grow by a random size only."""
    for _ in range(rounds):
        out = lab.place()
        more = int(lab.draw.uniform(0, 60) * 2**20)

        def limit(more: int = more) -> None:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))

        ended = lab.run(lab.finetune(out), limit)
        cause = ended.status == 0 or "memory" in ended.said
        told = "" if ended.in_words and cause else f"{more} bytes more: {ended}"
        yield told or lab.finish(out), 1


def cache(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """The cache of decoded images is removed, cut, filled with noise, or made read-only while a run reads it."""
    for _ in range(rounds):
        out = lab.place()
        process, said = lab.start(lab.finetune(out))
        lab.moment()
        way = lab.draw.choice(["remove", "cut", "noise", "read-only", "empty"])
        folder = lab.cache / "stochnorm/images"
        for file in folder.glob("*.images"):
            if way == "cut":
                os.truncate(file, lab.draw.randrange(file.stat().st_size))
            elif way == "empty":
                os.truncate(file, 0)
            elif way == "noise":
                (folder / "half.images").write_bytes(os.urandom(9000))
            elif way == "read-only":
                file.chmod(0o400)
        if way == "remove":
            shutil.rmtree(folder, ignore_errors=True)
        ended = lab.wait(process, said)
        yield (f"{way}: {ended}" if ended.status else lab.difference(Run(out)) or lab.finish(out)), 1


def images(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """Images are removed, cut or replaced while a run reads them; they come back, and the run goes on."""
    for _ in range(rounds):
        shutil.rmtree(lab.cache, ignore_errors=True)
        out = lab.place()
        saved = lab.folder / "saved"
        shutil.copytree(lab.photos, saved)
        arguments = lab.finetune(out)
        arguments[arguments.index("disk")] = lab.draw.choice(["disk", "none", "memory"])
        process, said = lab.start(arguments)
        lab.moment()
        stopped = lab.draw.random() < 0.5
        for file in lab.draw.sample(sorted(lab.photos.rglob("*.png")), 5):
            way = lab.draw.choice(["remove", "cut", "replace"])
            if way == "remove":
                file.unlink()
            elif way == "cut":
                os.truncate(file, 300)
            else:
                Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype="uint8")).save(file)
        if stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        ended = lab.wait(process, said)
        changed = lab.run(lab.finetune(out)) if stopped and (out / "images.csv").is_file() else None
        shutil.rmtree(lab.photos)
        saved.rename(lab.photos)
        fault = "" if stopped or ended.in_words else f"{ended}"
        if changed is not None and not changed.in_words:
            fault = f"{changed}"
        if not fault and ended.status == 0 and not stopped:
            shutil.rmtree(lab.cache, ignore_errors=True)  # finished on what it had read, or on what it then found
            yield "", 1
            continue
        yield fault or _again(lab, out), 1


def _again(lab: Lab, out: Path) -> str:
    """Go on with a run; one that began on other images says so, and is begun again."""
    ended = lab.run(lab.finetune(out))
    if ended.status and "images" in ended.said and ended.in_words:
        shutil.rmtree(out)
        ended = lab.run(lab.finetune(out))
    return f"{ended}" if ended.status else lab.difference(Run(out))


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


def output(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """Standard output is closed, full, or a pipe that nobody reads."""
    for number in range(rounds):
        out = lab.place()

        def change(way: int = number % 3) -> None:
            if way == 0:
                os.close(1)
                sys.stdout = None  # type: ignore[assignment]
            elif way == 1:
                os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
            else:
                ends = os.pipe()
                os.dup2(ends[1], 1)
                os.close(ends[0])
                os.close(ends[1])

        ended = lab.run(lab.finetune(out), change)
        right = ended.status == (1 if number % 3 == 1 else 0) and ("standard output" in ended.said) == (number % 3 == 1)
        yield (lab.difference(Run(out)) if right else f"{ended}"), 1


def clock(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """The clock goes back by years between a run and its resumption, as files and Python see it."""
    for _ in range(rounds):
        out = lab.place()
        process, said = lab.start(lab.finetune(out))
        lab.moment()
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        lab.wait(process, said)
        for file in out.rglob("*"):
            os.utime(file, (4e9, 4e9))  # written in the future

        def back() -> None:
            now = time.time
            time.time = lambda: now() - 1e9

        ended = lab.run(lab.finetune(out), back)
        yield (f"{ended}" if ended.status else lab.difference(Run(out))), 1


KINDS: dict[str, tuple[Callable[[Lab, int], Iterator[tuple[str, int]]], str]] = {
    "signals": (signals, "SIGKILL, SIGTERM, SIGINT at random moments of `finetune`"),
    "searches": (searches, "the same of `tune`"),
    "comparisons": (comparisons, "the same of `compare`"),
    "full_disk": (full_disk, "a write fails, as on a full disk"),
    "memory": (memory, "a limit of the address space"),
    "cache": (cache, "cache removed, cut, emptied, read-only, with strangers in it"),
    "images": (images, "images removed, cut, replaced while a run reads them"),
    "two": (two, "two commands on one directory"),
    "output": (output, "standard output closed, full, without a reader"),
    "clock": (clock, "the clock is set back"),
}


def soak(kinds: dict[str, int], folder: Path, seed: int = 0) -> dict[str, Tally]:
    """Inject so many faults of each kind; return the counts."""
    torch.set_num_threads(1)
    lab, tallies = Lab(folder, seed), {}
    for kind, rounds in kinds.items():
        tally = tallies[kind] = Tally()
        for fault, injected in KINDS[kind][0](lab, rounds):
            tally.add(fault, injected=injected)
    return tallies


def main() -> None:
    """Run it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="runs per kind; a quarter of them for compare and tune")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds, joined by commas")
    parser.add_argument("--seed", type=int, default=0)
    given: Any = parser.parse_args()
    print("| kind | injected | survived | lost | command |\n|:---|---:|---:|---:|:---|")
    for kind in given.kinds.split(","):
        rounds = max(given.rounds // 4, 1) if kind in ("searches", "comparisons") else given.rounds
        with tempfile.TemporaryDirectory() as folder:
            tally = soak({kind: rounds}, Path(folder), given.seed)[kind]
        command = f"`soak.py --kinds {kind} --rounds {given.rounds}`"
        survived = tally.injected - tally.lost
        print(f"| {KINDS[kind][1]} | {tally.injected} | {survived} | {tally.lost} | {command} |", flush=True)
        for fault in tally.why[:20]:
            print(f"{kind}: {fault}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
