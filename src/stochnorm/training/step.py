"""One training step: forward, loss, backward and the optimizer, without waiting for the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from stochnorm.data.images.stream import send
from stochnorm.data.splits import derive_seed
from stochnorm.methods.catalogue import methods_of
from stochnorm.nn import ascended, schedule, set_p
from stochnorm.nn.masks import JointMasks
from stochnorm.runs.config import FinetuneConfig
from stochnorm.training.average import Average
from stochnorm.training.objective import Objective, Terms
from stochnorm.training.rates import Rates
from stochnorm.training.schedules import factor
from stochnorm.training.sums import Sums

__all__ = ["MakeBatch", "TrainingStep"]

MakeBatch = Callable[..., tuple[Tensor, Tensor]]
"""Makes the network's input and the targets out of the tensors of a batch, or of a slice of them, on the device."""


class TrainingStep:
    """Train one step, in two parts: what the host decides, and what the device computes.

    `prepare` seeds the random generators and sets learning rates and p. `compute` is a sequence of device operations
    that depends on nothing else of the host, so that a CUDA graph can capture it (see
    [stochnorm.training.captured][]). Its values are summed on the device.

    On the CPU the loss is read before the optimizer's step, and a loss that is not finite raises there. On another
    device that would wait. There the optimizer's step is done, and the sums remember the first bad loss: whoever reads
    them gets the error, and they are read before anything is validated or written. So nothing that is computed
    with the weights of a bad step is validated or written.

    Args:
        config: The settings.
        objective: The classifier and its loss.
        fabric: Device, precision, processes.
        model: The network as `fabric.setup` returns it, or a wrapper of that.
        rates: The optimizer, as `fabric.setup` returns it, and its learning rates.
        make: Makes input and targets out of a batch.
        masks: Draws the masks of all StochNorm layers; None: each layer draws its own.
        average: The moving average of the weights; None for none.
        step: Steps that are done.
        sums: Sums that a run resumes with.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        objective: Objective,
        fabric: Fabric,
        model: Any,
        rates: Rates,
        make: MakeBatch,
        *,
        masks: JointMasks | None = None,
        average: Average | None = None,
        step: int = 0,
        sums: Mapping[str, float] | None = None,
    ) -> None:
        self.config, self.fabric, self.objective, self.model, self.make = config, fabric, objective, model, make
        self.rates, self.optimizer = rates, rates.optimizer
        self.masks, self.average, self.network = masks, average, objective.classifier.model
        self.climb = max(method.climb(method.settings_of(config)) for method in methods_of(config.method))
        task, classes = objective.task, len(objective.classifier.classes)
        self._scored = task.batch_score(torch.zeros(1, classes), torch.zeros(1)) is not None
        names = [*(f"penalty_{name}" for name in objective.regularizers), "loss", *["score"] * self._scored, "total"]
        each_step = fabric.device.type == "cpu" and not rates.are_tensors
        self.sums = Sums(names, fabric.device, step=step, start=sums, each_step=each_step)

    def __call__(self, number: int, inputs: Sequence[Tensor]) -> None:
        """Train a step.

        Args:
            number: Number of the step, from 0.
            inputs: The tensors of its batch, on the CPU.

        Raises:
            FloatingPointError: On the CPU: the loss is not finite.
        """
        self.prepare(number)
        self.compute(*inputs)

    def decay(self, number: int) -> float:
        """Return the factor of the learning rates at a step."""
        return factor(number, self.config.steps, self.config)

    def prepare(self, number: int) -> None:
        """Do the host's part of a step: random seed, learning rates, p.

        Masks and dropout are functions of seed, step and process, so that a resumed run draws the same.
        """
        config = self.config
        torch.manual_seed(derive_seed("step", config.seed, number, self.fabric.global_rank))
        self.rates.set(self.decay(number))
        if self.average is not None:
            self.average.prepare(number)
        if self.objective.mixing is not None:
            self.objective.mixing.prepare(number, self.objective.classifier.preprocessing.image_size)
        if config.p_schedule != "constant":
            set_p(self.network, schedule(config.p_schedule, config.p, config.p_end, number, config.steps))
            if self.masks is not None:
                self.masks.update()

    def compute(self, *inputs: Tensor) -> None:
        """Do the device's part of a step, part by part of the batch, and add its values to the sums.

        Args:
            inputs: The tensors of the batch; those of the CPU are sent to the device.
        """
        config, images = self.config, len(inputs[0])
        parts = config.accumulate
        self.network.train()
        self.optimizer.zero_grad()
        values: Tensor | None = None
        split = zip(*(tensor.tensor_split(parts) for tensor in inputs), strict=True)
        for number, part in enumerate(split, start=1):
            if self.masks is not None:
                self.masks.draw()
            network_input, targets = self.make(*(send(tensor, self.fabric.device) for tensor in part))
            terms = self._backward(network_input, targets, len(targets) / images, more=number < parts)
            of_part = self._values(terms, targets)
            values = of_part if values is None else values + of_part
        assert values is not None  # a batch has at least one part
        self.sums.add(values, images)
        if self.sums.each_step:
            self.sums.read()  # raises if the loss is not finite
        if config.clip_grad:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=config.clip_grad, error_if_nonfinite=False)
        with self.rates:
            self.optimizer.step()
        self.objective.stepped()
        if self.average is not None:
            self.average.update()

    def _backward(self, inputs: Tensor, targets: Tensor, share: float, *, more: bool) -> Terms:
        """Add the gradients of a part of the batch to the parameters'; return its terms.

        With SAM each part has a sharpest point of its own, and so has each process's share of the batch, as in the
        paper's experiments on several accelerators. The terms, and the moving statistics, are those at the weights.

        Args:
            inputs: The network's input.
            targets: Its labels.
            share: Fraction of the batch.
            more: Whether another part follows, so that several processes need not yet add their gradients.
        """

        def run(*, together: bool, again: bool = False) -> Terms:
            with self.fabric.no_backward_sync(self.model, enabled=not together):
                terms = self.objective(self.model, inputs, targets, share=share, again=again)
                self.fabric.backward(terms.loss)
            return terms

        if not self.climb:
            return run(together=not more)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        before = [parameter.grad for parameter in parameters]
        self.optimizer.zero_grad()
        terms = run(together=False)
        with ascended(self.network, rho=self.climb, parameters=parameters, before=before):
            run(together=not more, again=True)
        return terms

    def _values(self, terms: Terms, targets: Tensor) -> Tensor:
        """Return the values of a part, in the order of the sums' names, as sums over its images."""
        values = [*terms.penalties.values(), terms.task_loss]
        if self._scored:
            values.append(self.objective.score(terms.logits.detach(), targets))
        vector = torch.stack([value.detach().float() for value in (*values, terms.loss)]).to(self.sums.dtype)
        names = self.sums.names
        if self._scored:
            vector[names.index("score")].mul_(100)  # in percent
        vector[: names.index("total")].mul_(len(targets))  # all but the loss that the step minimizes
        return vector
