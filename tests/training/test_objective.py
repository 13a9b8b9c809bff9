"""The loss of a step: the task's, the auxiliary heads', the regularizers'."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.evaluation.tasks import MultiLabel, SingleLabel, Task
from stochnorm.models import Classifier
from stochnorm.regularizers import Regularizer, Step
from stochnorm.training.objective import Objective

CLASSES = ("a", "b", "c")


class Branched(nn.Module):
    """As Inception-v3: logits and auxiliary logits in training, logits alone in evaluation."""

    def __init__(self, *, convolutional: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 5, 2)
        self.head = nn.Conv2d(5, 3, 1) if convolutional else nn.Linear(5, 3)
        self.auxiliary = nn.Linear(3, 3)

    def features(self, x: Tensor) -> Tensor:
        maps: Tensor = self.backbone(x).relu()
        return maps if isinstance(self.head, nn.Conv2d) else maps.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits: Tensor = self.head(self.features(x))
        logits = logits.mean((2, 3)) if logits.ndim == 4 else logits
        return (logits, self.auxiliary(x.mean((2, 3)))) if self.training else logits


class Spy(Regularizer):
    """A constant plus a linear function of the features, so that the gradient is known."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.steps: list[Step] = []
        self.dtypes: list[torch.dtype] = []

    def forward(self, step: Step) -> Tensor:
        self.steps.append(step)
        self.dtypes.append((step.inputs.mean((2, 3)) @ torch.ones(3, 1)).dtype)
        return self.strength * (1 + step.features.mean())


def classifier(*, convolutional: bool = False) -> tuple[Branched, Classifier]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Branched(convolutional=convolutional)
    return model, Classifier(
        model, [model.head], "branched", "random", CLASSES, Preprocessing(4), [model.auxiliary], auxiliary_weight=0.4
    )


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("share", [1.0, 0.25])
@pytest.mark.parametrize(("task", "targets"), [
    (SingleLabel(CLASSES), torch.tensor([0, 2, 1, 1])),
    (MultiLabel(CLASSES), torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0]])),
], ids=["single", "multi"])  # fmt: skip
def test_the_loss_is_the_share_of_task_auxiliary_heads_and_penalties(task: Task, targets: Tensor, share: float) -> None:
    model, network = classifier()
    terms = Objective(network, task, {"one": Spy(2.0), "two": Spy(0.3)})(model, images(), targets, share)
    logits, auxiliary = model(images())
    criterion = F.cross_entropy if isinstance(task, SingleLabel) else F.binary_cross_entropy_with_logits
    mean = model.features(images()).mean()
    torch.testing.assert_close(terms.logits, logits)
    torch.testing.assert_close(terms.task_loss, criterion(logits, targets))  # for any share
    torch.testing.assert_close(terms.penalties, {"one": 2 * (1 + mean), "two": 0.3 * (1 + mean)})
    expected = criterion(logits, targets) + 0.4 * criterion(auxiliary, targets) + 2.3 * (1 + mean)
    torch.testing.assert_close(terms.loss, share * expected)


@pytest.mark.parametrize("convolutional", [False, True])
def test_features_are_what_the_head_takes_in_with_gradient(convolutional: bool) -> None:
    (model, network), spy = classifier(convolutional=convolutional), Spy(1.0)
    targets = torch.tensor([0, 2, 1, 1])
    terms = Objective(network, SingleLabel(CLASSES), {"spy": spy})(model, images(), targets, 0.5)
    taken = model.features(images())
    (step,) = spy.steps
    torch.testing.assert_close(step.features, taken.mean((2, 3)) if convolutional else taken)
    assert torch.equal(step.inputs, images())
    assert step.targets is targets
    assert step.logits is terms.logits
    assert step.share == 0.5
    weight = model.backbone.weight
    (gradient,) = torch.autograd.grad(terms.penalties["spy"], weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(taken.mean(), weight)[0])


def test_gradients_of_uneven_parts_add_up_to_the_batchs() -> None:
    (model, network), targets = classifier(), torch.tensor([0, 2, 1, 1])
    objective = Objective(network, SingleLabel(CLASSES), {"spy": Spy(0.7)})
    parameters = list(model.parameters())
    whole = torch.autograd.grad(objective(model, images(), targets).loss, parameters)
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for part in (slice(3), slice(3, 4)):
        chosen = images()[part]
        loss = objective(model, chosen, targets[part], share=len(chosen) / 4).loss
        sums = [a + b for a, b in zip(sums, torch.autograd.grad(loss, parameters), strict=True)]
    torch.testing.assert_close(tuple(sums), whole)


def test_evaluation_has_no_auxiliary_loss() -> None:
    model, network = classifier()
    model.eval()
    terms = Objective(network, SingleLabel(CLASSES), {})(model, images(), torch.tensor([0, 2, 1, 1]))
    assert torch.equal(terms.loss, terms.task_loss)
    assert terms.penalties == {}


def test_regularizers_run_in_the_steps_precision() -> None:
    (model, network), spy = classifier(), Spy(1.0)
    for autocast in (lambda: torch.autocast("cpu", torch.bfloat16), lambda: torch.autocast("cpu", enabled=False)):
        objective = Objective(network, SingleLabel(CLASSES), {"spy": spy}, autocast)
        objective(model, images(), torch.tensor([0, 2, 1, 1]))
    assert spy.dtypes == [torch.bfloat16, torch.float32]


def test_the_model_is_watched_for_regularizers_alone() -> None:
    model, network = classifier()
    Objective(network, SingleLabel(CLASSES), {})
    assert not model.head._forward_hooks
    Objective(network, SingleLabel(CLASSES), {"spy": Spy(1.0)})
    assert len(model.head._forward_hooks) == 1


class Sum(Regularizer):
    """A sum over the batch, as DELTA's."""

    def forward(self, step: Step) -> Tensor:
        return step.features.square().sum() / step.share


def test_averaged_gradients_of_processes_are_the_batchs() -> None:
    """Parts add up for regularizers that sum over the batch, too."""
    x, y = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3

    def gradients(processes: int) -> list[Tensor]:
        total: list[Tensor] = []
        for part, targets in zip(x.chunk(processes), y.chunk(processes), strict=True):
            model, classified = classifier()
            objective = Objective(classified, SingleLabel(CLASSES), {"sum": Sum()}, processes=processes)
            model.train()
            objective(model, part, targets).loss.backward()
            own = [p.grad / processes for p in model.parameters() if p.grad is not None]
            total = own if not total else [a + b for a, b in zip(total, own, strict=True)]
        return total

    for one, two in zip(gradients(1), gradients(2), strict=True):
        torch.testing.assert_close(one, two)
