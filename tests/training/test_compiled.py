"""Runs whose network is compiled. The compiler's cheapest backend runs the traced operations as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import stochnorm.training.compiled
from stochnorm import FinetuneConfig, finetune
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run

Configure = Callable[..., FinetuneConfig]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stochnorm.training.compiled, "_BACKEND", "aot_eager")
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("method", ["vanilla", "stochnorm+delta+bss"])
def test_a_compiled_run_learns_what_an_eager_one_does(
    photos: Path, tmp_path: Path, config: Configure, method: str
) -> None:
    """With the hooks of DELTA and BSS. The model is saved under the names of its layers."""
    options: dict[str, Any] = {"method": method, "steps": 4, "eval_every": 4, "lr": 0.001}
    finetune(config(photos, tmp_path / "eager", **options), quiet=True)
    finetune(config(photos, tmp_path / "compiled", compile=True, **options), quiet=True)
    eager, compiled = (Run(tmp_path / name) for name in ("eager", "compiled"))
    first, second = read_state_dict(eager.model), read_state_dict(compiled.model)
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(
            second[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    (before,), (after,) = eager.read_metrics(), compiled.read_metrics()
    for key in ("train_loss", "val_loss", *(key for key in before if key.startswith("penalty_"))):
        assert after[key] == pytest.approx(before[key], rel=1e-3)


@pytest.mark.parametrize("method", ["vanilla", "stochnorm+delta+bss"])
def test_a_run_compiles_once_and_only_for_training(
    photos: Path, tmp_path: Path, config: Configure, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Not again after a validation, in which hooks keep what they read, and not when p changes."""
    graphs: list[bool] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(torch.is_grad_enabled())
        return graph.forward

    monkeypatch.setattr(stochnorm.training.compiled, "_BACKEND", backend)
    options: dict[str, Any] = {"method": method, "compile": True, "steps": 6, "eval_every": 2, "lr": 0.001}
    options |= {"p": 1.0, "p_end": 0.5, "p_schedule": "linear"} if "stochnorm" in method else {}
    finetune(config(photos, tmp_path / "run", **options), quiet=True)
    assert graphs == [True]


def test_a_network_that_does_not_compile_is_an_error_that_says_what_to_do(
    photos: Path,
    tmp_path: Path,
    config: Configure,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(stochnorm.training.compiled, "_BACKEND", broken)
    with pytest.raises(ValueError, match=r"torch.compile cannot compile test_resnet \(.*\); remove --compile") as error:
        finetune(config(photos, tmp_path / "run", compile=True, device="cpu"))
    assert len(str(error.value).splitlines()) == 1
    assert "--compile takes minutes before the first step" in capsys.readouterr().out


def test_an_eager_run_resumes_compiled(
    photos: Path, tmp_path: Path, config: Configure, stop_at: Callable[[int, FinetuneConfig], None]
) -> None:
    """The checkpoint is that of the network itself."""
    options: dict[str, Any] = {"method": "vanilla", "steps": 6, "eval_every": 6}
    stop_at(3, config(photos, tmp_path / "run", **options))
    finetune(config(photos, tmp_path / "run", resume=True, compile=True, **options), quiet=True)
    assert Run(tmp_path / "run").state == "done"
