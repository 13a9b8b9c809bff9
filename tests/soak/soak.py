"""Injects faults into runs at random moments, and compares what comes out with undisturbed runs, bit for bit.

`make soak` runs it and prints the table of docs/reliability.md; `tests/soak/test_soak.py` runs a part of it. A command
is a process that is forked from this one, so that it begins at once; it is the same command line.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import killed
import surroundings
import torch
from lab import Lab


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


KINDS: dict[str, tuple[Callable[[Lab, int], Iterator[tuple[str, int]]], str]] = {
    "signals": (killed.signals, "SIGKILL, SIGTERM, SIGINT at random moments of `finetune`"),
    "searches": (killed.searches, "the same of `tune`"),
    "comparisons": (killed.comparisons, "the same of `compare`"),
    "imports": (killed.imports, "the same while a command is loaded"),
    "workers": (killed.workers, "a process that loads images is killed"),
    "full_disk": (surroundings.full_disk, "a write fails, as on a full disk"),
    "small_disk": (surroundings.small_disk, "a small file system is full, then larger"),
    "memory": (surroundings.memory, "a limit of the address space"),
    "cache": (surroundings.cache, "cache removed, cut, emptied, read-only, with strangers in it"),
    "images": (surroundings.images, "images removed, cut, replaced while a run reads them"),
    "two": (killed.two, "two commands on one directory"),
    "output": (surroundings.output, "standard output closed, full, without a reader"),
    "clock": (surroundings.clock, "the clock is set back"),
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
