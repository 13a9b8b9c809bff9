"""All tests and benchmarks of a GPU one after another, each with a time limit, so that none costs the others.

    python benchmarks/gpu.py                              # what make bench-gpu does: ten minutes at most
    python benchmarks/gpu.py --tests --minutes 13         # what make gpu does: the tests before them
    python benchmarks/gpu.py layer job --out /tmp/gpu

What matters most comes first. A part that reaches its limit is stopped (with a traceback of where it was), one that
fails is noted, and the next one follows. OUT gets a JSON file per benchmark and one log; the log ends with a summary.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TextIO

ROOT = Path(__file__).resolve().parents[1]
_LEAST = 20  # seconds: nothing begins with fewer left
_MODULES = "Extension modules:"  # a long line below the traceback of a process that is stopped
_WORKERS = min(6, max((os.cpu_count() or 1) // 2, 1))  # each holds half a gigabyte of the GPU
_PYTEST = f"-m pytest -m gpu -q --tb=short -p pytest_timeout -p xdist.plugin -n {_WORKERS}".split()


class Part(NamedTuple):
    """Something to run."""

    command: list[str]
    """Arguments of Python."""
    limit: float
    """Seconds."""


def _benchmark(script: str, *options: str) -> list[str]:
    return [f"benchmarks/{script}.py", *options]


TESTS = {
    "tests of the layer": Part([*_PYTEST, "tests/nn"], 200),
    "other tests": Part([*_PYTEST, "tests", "--ignore=tests/nn"], 120),
}
BENCHMARKS = {
    "layer": Part(_benchmark("gpu_layer"), 220),
    "step": Part(_benchmark("gpu_step"), 80),
    "job": Part(_benchmark("gpu_job"), 200),
    "methods": Part(_benchmark("gpu_methods"), 70),
    "grid": Part(_benchmark("gpu_grid"), 90),
    "evaluation": Part(_benchmark("gpu_evaluation"), 50),
    "step_compiled": Part(_benchmark("gpu_step", "--compile", "--seconds", "130"), 150),
}


class Log:
    """Writes into the log and to the terminal."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, text: str) -> None:
        for stream in (self._file, sys.stdout):
            stream.write(text)
            stream.flush()


def run(part: Part, options: Sequence[str], limit: float, log: Log) -> tuple[str, float]:
    """Run a part; return how it ended, and seconds."""
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",  # so that a process that is stopped says where it was
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # those of other packages that happen to be there
        "COLUMNS": "130",
    }
    start = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, *part.command, *options],
        cwd=ROOT,
        env=environment,
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    reader = threading.Thread(
        target=lambda: [log(line) for line in process.stdout or () if not line.startswith(_MODULES)], daemon=True
    )
    reader.start()
    try:
        status = process.wait(limit)
        state = "done" if status == 0 else f"failed with status {status}"
    except subprocess.TimeoutExpired:
        state = "stopped at its time limit"
        process.send_signal(signal.SIGINT if "pytest" in part.command else signal.SIGABRT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            state += ", killed"
    finally:  # whatever it started, too
        _kill_group(process.pid)
        process.wait()
    reader.join(5)
    if process.stdout:
        process.stdout.close()
    return state, time.perf_counter() - start


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # all have ended
        os.killpg(group, signal.SIGKILL)


def goals(out: Path, names: Sequence[str]) -> list[str]:
    """Return a line per goal of the benchmarks that have written a result."""
    lines = []
    for name in names:
        file = out / f"{name}.json"
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"goals": []}
        for goal in content["goals"]:
            verdict = "met    " if goal["met"] else "NOT MET"
            lines.append(f"{verdict} {goal['what']}: {goal['measured']} ({goal['goal']})")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *BENCHMARKS], help="benchmarks; none: all")
    parser.add_argument("--tests", action="store_true", help="the tests before them")
    parser.add_argument("--only-tests", action="store_true", help="the tests alone")
    parser.add_argument("--minutes", type=float, default=10, help="in all; what does not fit is left out")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/gpu")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="with --device cpu, to test the code")
    args = parser.parse_args(arguments)

    parts = dict(TESTS) if args.tests or args.only_tests else {}
    parts |= (
        {} if args.only_tests else {name: BENCHMARKS[name] for name in BENCHMARKS if name in (args.parts or BENCHMARKS)}
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a part that is stopped writes no image of its memory
    out = args.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    for name in parts:
        (out / f"{name}.json").unlink(missing_ok=True)  # an older one is not the result of this run
    end = time.perf_counter() + 60 * args.minutes
    summary = []
    with (out / "log.txt").open("w", encoding="utf-8") as file:
        log = Log(file)
        if smi := shutil.which("nvidia-smi"):
            log(subprocess.run([smi], check=False, capture_output=True, text=True).stdout)  # noqa: S603
        for name, part in parts.items():
            left = end - time.perf_counter()
            if left < _LEAST:
                summary.append(f"{name}: left out, no time was left")
                continue
            options = ["--device", args.device]
            if name not in TESTS:
                options += ["--out", str(out / f"{name}.json"), *(["--tiny"] if args.tiny else [])]
            log(f"\n== {name}\n")
            limit = left if args.only_tests else min(part.limit, left)
            state, seconds = run(part, options, limit, log)
            summary.append(f"{name}: {state}, {seconds:.0f} s")
            log(f"== {summary[-1]}\n")
        judged = ["tiny: figures mean nothing"] if args.tiny else goals(out, list(parts))
        log("\n".join(["", "Summary", *summary, "", *judged, ""]))
    return 0 if all(": done" in line for line in summary) else 1


if __name__ == "__main__":
    sys.exit(main())
