"""Callbacks in the training loops of other libraries: p at each step, statistics that are averaged or held."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import stochnorm
from stochnorm.integrations.policy import Policy
from stochnorm.nn import StochNorm2d

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other libraries

EXPECTED = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]  # three epochs of two steps


def images() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(8, 3, 6, 6, generator=generator) + 2, torch.arange(8) % 2)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    return stochnorm.convert(nn.Sequential(*layers), p=0.3)


def recorded(model: nn.Sequential) -> list[float]:
    """Return a list to which every training pass adds the layer's p."""
    seen: list[float] = []

    def record(layer: Any, *_: object) -> None:
        if layer.training:
            seen.append(round(layer.p, 4))

    model[1].register_forward_pre_hook(record)
    return seen


def test_a_policy_goes_from_the_first_to_the_last_step_and_refuses_what_is_no_probability() -> None:
    policy = Policy.of(1.0, 0.0, "cosine")
    assert [round(policy.at(step, 5), 4) for step in range(6)] == [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    assert Policy.of(0.5, None, "linear").at(3, 5) == 0.5
    with pytest.raises(ValueError, match=r"1\.5"):
        Policy.of(0.5, 1.5, "linear")
    with pytest.raises(ValueError, match="has no StochNorm layer"):
        policy.apply(nn.Sequential(nn.BatchNorm2d(3)), 0, 5)


class TestLightning:
    @pytest.fixture
    def lightning(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pytest.importorskip("pytorch_lightning")

    @pytest.fixture
    def fit(self, lightning: Any, tmp_path: Path) -> Any:
        class Module(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.network = network()

            def training_step(self, batch: list[Tensor], _: int) -> Tensor:
                return F.cross_entropy(self.network(batch[0]), batch[1])

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.SGD(self.parameters(), lr=0.1)

        def run(*callbacks: Any, **options: Any) -> tuple[nn.Sequential, list[float]]:
            module = Module()
            seen = recorded(module.network)
            off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
            settings = {"max_epochs": 3, "accelerator": "cpu", "enable_model_summary": False} | off | options
            trainer = lightning.Trainer(callbacks=list(callbacks), default_root_dir=tmp_path, **settings)
            trainer.fit(module, DataLoader(images(), batch_size=4))
            return module.network, seen

        return run

    def test_p_follows_the_steps(self, fit: Any) -> None:
        from stochnorm.integrations.lightning import StochNormCallback

        assert fit(StochNormCallback(1.0, 0.5))[1] == EXPECTED

    def test_parts_of_a_step_have_one_p(self, fit: Any) -> None:
        from stochnorm.integrations.lightning import StochNormCallback

        assert fit(StochNormCallback(1.0, 0.5), accumulate_grad_batches=2)[1] == [1.0, 1.0, 0.75, 0.75, 0.5, 0.5]

    def test_averaged_weights_get_the_statistics_of_the_network_without_masks(self, lightning: Any, fit: Any) -> None:
        from stochnorm.integrations.lightning import StochNormCallback

        passed: list[Tensor] = []

        class Inputs(lightning.Callback):  # type: ignore[misc]
            def on_fit_start(self, _: Any, module: Any) -> None:
                module.network[1].register_forward_pre_hook(lambda _, inputs: passed.append(inputs[0].detach()))

        average = lightning.callbacks.StochasticWeightAveraging(0.05, swa_epoch_start=1, annealing_epochs=1)
        model, seen = fit(StochNormCallback(0.5), average, Inputs())
        assert seen[-2:] == [1.0, 1.0]  # Lightning goes over the batches once more
        means, variances = ([of(x, (0, 2, 3)) for x in passed[-2:]] for of in (torch.mean, torch.var))
        torch.testing.assert_close(model[1].running_mean, sum(means) / 2)
        torch.testing.assert_close(model[1].running_var, sum(variances) / 2)

    def test_freezing_holds_the_statistics(self, lightning: Any, fit: Any) -> None:
        class Frozen(lightning.callbacks.BaseFinetuning):  # type: ignore[misc]
            def freeze_before_training(self, module: Any) -> None:
                self.freeze(module.network[:2], train_bn=False)

            def finetune_function(self, *_: object) -> None:
                pass

        before = network()[1]
        model, seen = fit(Frozen())
        assert isinstance(model[1], StochNorm2d)
        assert len(seen) == 6
        assert torch.equal(model[1].running_mean, before.running_mean)
        assert torch.equal(model[1].weight, before.weight)


def test_p_follows_the_steps_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from stochnorm.integrations.transformers import StochNormCallback

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"loss": F.cross_entropy(self.network(x), labels)}

    model = Model()
    seen = recorded(model.network)
    arguments = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=3, per_device_train_batch_size=4, report_to="none", save_strategy="no",
        disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    data = [{"x": x, "labels": y} for x, y in images()]
    transformers.Trainer(model, arguments, train_dataset=data, callbacks=[StochNormCallback(1.0, 0.5)]).train()
    assert seen == EXPECTED


def test_p_follows_the_share_of_a_fit_of_fastai() -> None:
    pytest.importorskip("fastai")
    from fastai.callback.progress import ProgressCallback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner

    from stochnorm.integrations.fastai import StochNormCallback

    model = network()
    seen = recorded(model)
    loader = DataLoader(images(), batch_size=4)
    learner = Learner(
        DataLoaders(loader, loader, device=torch.device("cpu")), model, F.cross_entropy, cbs=StochNormCallback(1.0, 0.4)
    )
    learner.remove_cbs(ProgressCallback)
    with learner.no_logging():
        learner.fit(3)
    assert seen == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]  # fastai counts the steps that are done: the last one begins at 5 / 6
