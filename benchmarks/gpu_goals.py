"""The goals on a GPU, of all its benchmarks: what a table says is not measured as long as nobody has measured it."""

from __future__ import annotations

from typing import NamedTuple

from measure import Goal, at_least, at_most


class Aim(NamedTuple):
    """A goal without its measurement."""

    what: str
    limit: float
    least: bool = False
    """The limit is the least value, not the most."""
    unit: str = ""

    def reached(self, value: float) -> Goal:
        """Return the goal with its measurement."""
        bound = at_least if self.least else at_most
        return bound(self.limit, self.what, value, self.unit)

    def open(self) -> Goal:
        """Return the goal without a measurement."""
        goal = self.reached(0.0)
        return Goal(goal.what, goal.goal, "not measured", met=False)


def layer_aims() -> list[Aim]:
    """Return the goals of gpu_layer.py."""
    aims = []
    for dtype in ("bfloat16", "float32"):
        for layout in ("channels_last", "contiguous"):
            where = f"{dtype}, {layout}"
            first = (dtype, layout) == ("bfloat16", "channels_last")
            aims.append(Aim(f"device time of StochNorm to BatchNorm, 53 inputs, {where}", 0.80 if first else 1.00))
            aims.append(Aim(f"device time of StochNorm to BatchNorm, worst input, {where}", 1.15))
            if first:
                aims.append(Aim(f"device time of StochNorm + ReLU to BatchNorm + ReLU, 53 inputs, {where}", 0.65))
                aims.append(Aim(f"eager time of StochNorm to BatchNorm, 53 inputs, {where}", 1.15))
                aims.append(Aim(f"compiled StochNorm to compiled BatchNorm, device time, {where}", 1.03))
    return aims


NETWORKS = ("EfficientNet-Lite0", "ResNet-50")

AIMS: dict[str, tuple[str, list[Aim]]] = {
    "layer": ("GPU: the layer, forward and backward", layer_aims()),
    "step": (
        "GPU: a training step",
        [Aim(f"time of a StochNorm step to BatchNorm's in a CUDA graph, {network}", 1.03) for network in NETWORKS],
    ),
    "step_compiled": (
        "GPU: a compiled training step",
        [Aim("time of a compiled StochNorm step to BatchNorm's in a CUDA graph, ResNet-50", 1.03)],
    ),
    "methods": (
        "GPU: the methods, a training step",
        [
            Aim(f"step of {method} to vanilla's, {network}", limit)
            for network in NETWORKS
            for method, limit in {"l2sp": 1.05, "bss": 1.03, "delta": 1.40}.items()
        ],
    ),
    "job": (
        "GPU: the job against the bare step",
        [
            aim
            for network in NETWORKS
            for aim in (
                Aim(f"images/s of the job, start to result, to the bare step's in a CUDA graph, {network}", 0.90, True),
                Aim(f"peak memory of the job to the bare loop's, {network}", 1.05),
            )
        ]
        + [Aim("time of StochNorm's job to plain fine-tuning's, EfficientNet-Lite0", 1.02)]
        + [Aim("300 steps on 500 images, start to report, in a process that is warm", 12, unit=" s")],
    ),
    "grid": ("GPU: a grid of runs", [Aim("time of a grid to the sum of its runs' steps", 1.15)]),
    "evaluation": (
        "GPU: evaluation",
        [
            Aim(f"images/s of {what} to the bare forward pass's in a CUDA graph, {network}", 0.90, True)
            for network in NETWORKS
            for what in ("validation", "ten crops")
        ],
    ),
}
"""Title and goals of each benchmark; its JSON file has the same name."""


def title(name: str) -> str:
    return AIMS[name][0]


def reached(name: str, what: str, value: float) -> list[Goal]:
    """Return the goal of that name with its measurement; nothing if there is none, as for a network of a test."""
    return [aim.reached(value) for aim in AIMS[name][1] if aim.what == what]


def not_measured(name: str, measured: set[str]) -> list[Goal]:
    """Return the goals of a benchmark that are not among those measured."""
    return [aim.open() for aim in AIMS[name][1] if aim.what not in measured]
