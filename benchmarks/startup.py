"""Measure the start of the package and the command: fresh processes that take turns, medians.

    python benchmarks/startup.py
    python benchmarks/startup.py --rounds 21

The goals are on processor time (user and system), which other work on the machine disturbs least; the seconds that pass
are measured with it. The share of stochnorm is measured within the process, because the import of torch varies from one
process to the next by more than that.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from measure import Outcome, arguments, at_most

PASS, TORCH = "python -c pass", "python -c 'import torch'"


@dataclass(frozen=True)
class Case:
    """A process to start."""

    title: str
    arguments: list[str]
    """Arguments of Python."""
    base: str = PASS
    """Title of the case that it is compared with."""
    limit: float | None = None
    """The goal: processor seconds beyond its base."""


def beyond_torch(code: str) -> Case:
    """It prints the processor seconds of the code alone."""
    timed = f"import time, torch; start = time.process_time(); {code}; print(time.process_time() - start)"
    return Case(f"python -c 'import torch; {code}'", ["-c", timed], TORCH, limit=0.05)


def command(arguments: str, limit: float | None = None) -> Case:
    return Case(f"stochnorm {arguments}", ["-m", "stochnorm", *arguments.split()], limit=limit)


CASES = [
    Case(PASS, ["-c", "pass"]),
    Case("python -c 'import stochnorm'", ["-c", "import stochnorm"]),
    Case(TORCH, ["-c", "import torch"]),
    beyond_torch("import stochnorm; from stochnorm import convert"),
    command("--help", limit=0.3),
    command("finetune --help"),
    command("ls methods"),
]


def start(case: Case) -> tuple[float, float, str]:
    """Seconds that pass, processor seconds, and what is printed."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *case.arguments], capture_output=True, text=True, check=True)  # noqa: S603
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def main() -> None:
    parser = arguments(__doc__, "startup")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()

    for case in CASES:  # compiles and reads what later rounds find compiled and in memory
        start(case)
    rounds = [[start(case) for case in CASES] for _ in range(args.rounds)]
    seconds, processor, added = {}, {}, {}
    for case, runs in zip(CASES, zip(*rounds, strict=True), strict=True):
        seconds[case.title] = statistics.median(run[0] for run in runs)
        processor[case.title] = statistics.median(run[1] for run in runs)
        added[case.title] = (
            statistics.median(float(run[2]) for run in runs)
            if case.base == TORCH
            else processor[case.title] - processor[case.base]
        )

    outcome = Outcome(
        f"Time to start, medians of {args.rounds} fresh processes",
        ["process", "seconds", "processor, s", "beyond", "processor, s, beyond it"],
        "Processes take turns. The goals are on processor time, which other work on the machine disturbs least.",
    )
    for case in CASES:
        name, base = case.title, case.base if case.title != case.base else ""
        row = [name, f"{seconds[name]:.3f}", f"{processor[name]:.3f}", base, f"{added[name]:.3f}" if base else ""]
        outcome.rows.append(row)
        if case.limit:
            outcome.goals.append(at_most(case.limit, f"{name}, beyond {base}", added[name], " s"))
    outcome.write(args.out)


if __name__ == "__main__":
    main()
