"""Timing on a GPU: what is compared takes turns, in random order, and CUDA events around many calls time it.

*Device time* is that of replays of a CUDA graph, in which nothing waits for Python; *eager time* that of a Python loop.
Both wait for the GPU before each round and count all that happens until the last kernel has ended. Before the first
round the GPU works for a second, so that its clock has settled. Small inputs take turns too, since a single one would
stay in the GPU's L2 cache, which no layer of a network finds: `copies` says how many are needed.

On the CPU, for tests, functions are called as they are, and the clock is Python's.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from gpu_goals import reached, title
from measure import RESULTS, ROOT, Outcome, Timing, arguments
from stochnorm.nn.cuda import trust

Work = Callable[[], object]
WITHOUT_TRITON = " **The Triton kernels did not run**: PyTorch's own were measured in their place."
_LEAST = 2e-3  # seconds of a round: events have a resolution of half a microsecond, and a launch takes several


def options(description: str | None, name: str, seconds: float) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks on a GPU."""
    parser = arguments(description, name)
    parser.set_defaults(out=RESULTS / "gpu" / f"{name}.json")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small inputs and few rounds, to test the code on a CPU")
    parser.add_argument("--seconds", type=float, default=seconds, help="about as long as it may take")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; end with a message if there is no GPU."""
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("this machine, or this PyTorch, has no GPU; --device cpu --tiny tests the code")
    if args.tiny and args.out == parser.get_default("out"):
        args.out = ROOT / "build" / args.out.name  # nothing that a page shows
    torch.manual_seed(0)
    return args


class Budget:
    """The seconds that a benchmark may take."""

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds

    @property
    def left(self) -> float:
        return max(self._end - time.perf_counter(), 0.0)


def captured(function: Work, device: str, *, warm_up: int = 3) -> Work:
    """Return a function that replays a CUDA graph of a function; on the CPU the function itself.

    Args:
        function: Work that does not wait for the GPU.
        device: `cuda` or `cpu`.
        warm_up: Number of calls before the capture: they compile kernels and make the states of an optimizer.

    Raises:
        RuntimeError: The function cannot be captured.
    """
    if device == "cpu":
        return function
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warm_up):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        function()

    def replay(_keeps: Work = function) -> None:  # the tensors that the graph reads and writes
        graph.replay()

    return replay


def settle(device: str, seconds: float = 1.0) -> None:
    """Let the GPU work until its clock has settled."""
    if device == "cpu":
        return
    gc.freeze()  # the modules, through which the collector would go again at each `release`
    matrix = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(20):
            torch.mm(matrix, matrix)
        torch.cuda.synchronize()


def copies(bytes_each: int, device: str, most: int = 16) -> int:
    """Return how many inputs of a size are needed so that none is found in the L2 cache: three times its size."""
    if device == "cpu":
        return 1
    cache: int = torch.cuda.get_device_properties(0).L2_cache_size
    return min(max(-(-3 * cache // bytes_each), 1), most)


def take_turns(
    works: Mapping[str, Work], device: str, *, rounds: int, seconds: float = 0.0, calls: int = 0
) -> dict[str, Timing]:
    """Time functions that take turns, in random order each round.

    Args:
        works: What to time, by name.
        device: `cuda` or `cpu`.
        rounds: The most rounds, but at least three.
        seconds: No further round begins after so many; 0 for no limit.
        calls: Calls of each function in a round; 0: so many that a round takes two milliseconds.

    Returns:
        Seconds of a call.
    """
    records: dict[str, list[float]] = {name: [] for name in works}
    numbers: dict[str, int] = {}
    end = time.perf_counter() + (seconds or float("inf"))
    with _no_collection():
        for name, work in works.items():
            _elapsed(work, 1, device)  # not counted
            one = _elapsed(work, 1, device)
            numbers[name] = calls or max(1, min(round(_LEAST / max(one, 1e-7)), 1000))
        for number in range(max(rounds, 3)):
            if number >= 3 and time.perf_counter() > end:
                break
            for name in random.sample(list(works), len(works)):
                records[name].append(_elapsed(works[name], numbers[name], device) / numbers[name])
    return {name: Timing(record) for name, record in records.items()}


def peak_gigabytes(work: Work, device: str) -> float:
    """Return the most memory that tensors hold during a call, with what they held before; 0 on the CPU."""
    if device == "cpu":
        work()
        return 0.0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e9


def release(device: str) -> None:
    """Give back the GPU's memory that nothing uses, the pools of graphs too."""
    if device == "cuda":
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


class Measured(Outcome):
    """The outcome of a benchmark on a GPU, with the goals that are written down for it."""

    @classmethod
    def of(cls, name: str, columns: Sequence[str], notes: str) -> Measured:
        outcome = cls(title(name), columns, notes)
        outcome.name = name
        return outcome

    name = ""
    failed = False

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """Keep the rest if a part fails: the table says so, and `write` ends with an error."""
        try:
            yield
        except Exception as error:  # a GPU may be at hand for this one time
            traceback.print_exc()
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self.notes += f" **Failed: {what}** ({reason})."
            self.failed = True

    def reach(self, what: str, value: float) -> None:
        """Add a goal, if there is one of that name."""
        self.goals += reached(self.name, what, value)

    def save(self, path: Path) -> None:
        """Write the JSON file; it says so if the kernels did not work, because then others were measured."""
        warning = "" if trust.allowed() else WITHOUT_TRITON
        self.notes = self.notes.removesuffix(WITHOUT_TRITON) + warning
        super().save(path)

    def write(self, path: Path) -> None:
        super().write(path)
        if not trust.allowed():
            print(WITHOUT_TRITON)
        if not self.goals:
            print("no goal of this benchmark was measured")
        if self.failed:
            raise SystemExit(self.notes)


def _elapsed(work: Work, calls: int, device: str) -> float:
    """Return the seconds of some calls."""
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(calls):
            work()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    for _ in range(calls):
        work()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's collector of garbage would stop a Python loop now and then."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
