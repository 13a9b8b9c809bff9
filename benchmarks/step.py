"""A whole training step with StochNorm in the place of BatchNorm: its time, its memory, and that nothing else changes.

    python benchmarks/step.py                                 # two networks: 2 minutes
    python benchmarks/step.py --rounds 30
    python benchmarks/step.py --precision 32

Forward, loss, backward and SGD as the main job does them, in bfloat16 or float32: channels_last, compiled kernels for
BatchNorm (timm's, which activates) as for StochNorm.
Time: both models in one process take steps in turns, in random order; the ratio is of their medians. Memory: the most
that tensors hold in a step beyond the model and its optimizer, by PyTorch's profiler; a process of each. (What a
process takes from the system differs from one to the next by a tenth, for one and the same model.) Exactness: in
evaluation, and in training after ``restore``, the model must give BatchNorm's outputs bit for bit; the script fails
otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from measure import Outcome, Timing, arguments, at_most, in_child, side_by_side
from stochnorm.models import build_classifier
from stochnorm.nn import convert, restore
from stochnorm.runs.hardware import launch
from training_step import BUNDLED, CLASSES, Training, step_memory, training


class Case(NamedTuple):
    backbone: str
    batch_size: int
    image_size: int


CASES = {"ResNet-50": Case("torchvision/resnet50", 16, 224), "EfficientNet-Lite0": Case(BUNDLED, 32, 128)}


def of(case: Case, method: str, precision: str) -> Training:
    size = {"batch_size": case.batch_size, "image_size": case.image_size}
    return training(case.backbone, method, **size, precision=precision)


def memory(case: Case, method: str, precision: str) -> float:
    """Gigabytes of the second step."""
    trained = of(case, method, precision)
    trained.step()
    return step_memory(trained)


@torch.no_grad()
def exact(case: Case, precision: str) -> tuple[bool, bool]:
    """Return whether the outputs are BatchNorm's in evaluation, and in training after the model is restored."""

    def outputs(model: nn.Module, training: bool) -> Tensor:
        torch.manual_seed(0)  # of dropout
        with launch("auto", precision).autocast():
            result: Tensor = model.train(training)(inputs)
        return result

    weights = "bundled" if case.backbone == BUNDLED else "random"
    classifier = build_classifier(case.backbone, weights, CLASSES, image_size=case.image_size)
    model = classifier.model.to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (case.batch_size, 3, case.image_size, case.image_size), dtype=torch.uint8)
    inputs = classifier.preprocessing.normalize(images)
    evaluated = outputs(model, False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    trained = outputs(model, True)  # moves the statistics
    model.load_state_dict(state)
    convert(model, p=0.5)
    in_eval = torch.equal(outputs(model, False), evaluated)
    restore(model)
    return in_eval, torch.equal(outputs(model, True), trained)


def times(case: Case, precision: str, rounds: int, seconds: float) -> list[Timing]:
    """Seconds of both models' steps."""
    both = [of(case, method, precision) for method in ("vanilla", "stochnorm")]
    return side_by_side([one.step for one in both], rounds, seconds=seconds)


def main() -> None:
    parser = arguments(__doc__, "step")
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7, help="at least, of each network")
    parser.add_argument("--seconds", type=float, default=20, help="at least, of each network")
    parser.add_argument("--precision", choices=["bf16", "32"], default="bf16")
    args = parser.parse_args()

    outcome = Outcome(
        "A training step",
        ["network", "BatchNorm ms", "StochNorm ms", "quartiles", "time", "BatchNorm GB", "StochNorm GB", "memory",
         "equal in evaluation", "equal when restored"],
        f"Medians of steps in precision {args.precision} taken in turns; GB is what tensors hold in a step beyond "
        "model and optimizer, at the most. *time* and *memory* are StochNorm's to BatchNorm's.",
    )  # fmt: skip
    for name in args.networks:
        case = CASES[name]
        in_eval, restored = in_child(exact, case, args.precision)
        assert in_eval and restored, f"{name}: not BatchNorm's outputs"
        plain, ours = in_child(times, case, args.precision, args.rounds, args.seconds)
        gigabytes = [in_child(memory, case, method, args.precision) for method in ("vanilla", "stochnorm")]
        grown = gigabytes[1] / gigabytes[0]
        outcome.rows.append(
            [
                f"{name}, batch {case.batch_size}, {case.image_size} px",
                f"{plain.median * 1e3:.0f}",
                f"{ours.median * 1e3:.0f}",
                ours.spread(1e3, ".0f"),
                f"{ours.over(plain):.3f}",
                *(f"{value:.3f}" for value in gigabytes),
                f"{grown:.3f}",
                "yes",
                "yes",
            ]
        )
        outcome.goals.append(at_most(1.03, f"time of a StochNorm step to BatchNorm's, {name}", ours.over(plain)))
        outcome.goals.append(at_most(1.02, f"memory of a StochNorm step to BatchNorm's, {name}", grown))
    outcome.write(args.out)


if __name__ == "__main__":
    main()
