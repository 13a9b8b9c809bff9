"""WiSE-FT in a run: the weights that are kept lie between the probe and the end of the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import stochnorm.training.train
from stochnorm import FinetuneConfig, WiSEConfig, evaluate, finetune, load_classifier
from stochnorm.models.weights import read_state_dict
from stochnorm.nn.mixtures import between
from stochnorm.runs.directory import Run
from stochnorm.training.kept import keep

Configure = Callable[..., FinetuneConfig]


@pytest.fixture
def settings(weights: str) -> dict[str, Any]:
    return {"head": "probe", "weights": weights, "lr": 0.002}


def model_of(path: Path) -> dict[str, torch.Tensor]:
    return read_state_dict(path / "model.safetensors")


def test_the_share_is_the_best_on_validation_and_the_weights_lie_there(
    photos: Path, tmp_path: Path, config: Configure, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[Any] = []
    original = keep.starting_weights
    monkeypatch.setattr(
        stochnorm.training.train, "starting_weights", lambda job: starts.append(original(job)) or starts[-1]
    )
    finetune(config(photos, tmp_path / "plain", method="stochnorm", **settings), quiet=True)
    result = finetune(config(photos, tmp_path / "wise", method="stochnorm+wise", **settings), quiet=True)
    facts = result.record["method"]["wise"]
    assert list(facts["validation"]) == ["0", "0.25", "0.5", "0.75", "1"]
    assert facts["validation"][f"{facts['share']:g}"] == max(facts["validation"].values())
    assert result.validation["top1"] == pytest.approx(facts["validation"][f"{facts['share']:g}"])
    plain = Run(tmp_path / "plain").read_result()["validation"]["top1"]
    assert facts["validation"]["1"] == pytest.approx(plain)
    assert starts[0] == {}
    probe = result.record["probe"]["val_top1"]
    assert facts["validation"]["0"] == pytest.approx(probe, abs=20)  # of six images, at other rounding
    expected = between(starts[1], model_of(tmp_path / "plain"), facts["share"])
    found = model_of(tmp_path / "wise")
    assert all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_given_share_is_taken(
    photos: Path, tmp_path: Path, config: Configure, settings: dict[str, Any], share: float
) -> None:
    """At 1 the run is the one without; at 0 its backbone is as it was pre-trained."""
    result = finetune(
        config(photos, tmp_path / "wise", method="vanilla+wise", wise=WiSEConfig(share), **settings), quiet=True
    )
    assert list(result.record["method"]["wise"]["validation"]) == [f"{share:g}"]
    found = model_of(tmp_path / "wise")
    if share == 0:
        pretrained = read_state_dict(Path(settings["weights"]))
        keys = [key for key in pretrained if not key.startswith("fc") and "num_batches" not in key]
        assert all(torch.equal(found[key], pretrained[key]) for key in keys)
    else:
        finetune(config(photos, tmp_path / "plain", method="vanilla", **settings), quiet=True)
        plain = model_of(tmp_path / "plain")
        assert all(torch.equal(found[key], plain[key]) for key in plain)


def test_a_run_that_was_stopped_or_killed_keeps_the_same_weights(
    photos: Path,
    tmp_path: Path,
    config: Configure,
    settings: dict[str, Any],
    stop_at: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also one that was killed when its model was already a mixture, which is not mixed again."""
    given = settings | {"method": "frozen+wise", "wise": WiSEConfig(0.5)}
    finetune(config(photos, tmp_path / "whole", **given), quiet=True)
    whole = model_of(tmp_path / "whole")
    stop_at(5, config(photos, tmp_path / "stopped", **given))

    def killed(*_: Any) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(stochnorm.training.train, "conclude", killed)
        with pytest.raises(OSError, match="killed"):
            finetune(config(photos, tmp_path / "killed", **given), quiet=True)
    assert all(torch.equal(value, whole[key]) for key, value in model_of(tmp_path / "killed").items())
    for name in ("stopped", "killed"):
        resumed = finetune(config(photos, tmp_path / name, resume=True, **given), quiet=True)
        found = model_of(tmp_path / name)
        assert all(torch.equal(found[key], whole[key]) for key in whole)
        assert resumed.record["method"] == Run(tmp_path / "whole").read_result()["method"]


def test_the_result_is_an_ordinary_run(
    photos: Path, tmp_path: Path, config: Configure, settings: dict[str, Any]
) -> None:
    given = config(photos, tmp_path / "run", method="bin+wise", report=True, **settings)
    result = finetune(given, quiet=True)
    assert load_classifier(tmp_path / "run").classes == ("blue", "green", "red")
    assert evaluate(tmp_path / "run").metrics["top1"] == pytest.approx(result.test["top1"])  # type: ignore[index]
    page = (tmp_path / "run/report.html").read_text()
    assert "bin+wise" in page
    assert f"kept: {100 * result.record['method']['wise']['share']:.0f} % of the way from the probe to the end" in page
    assert finetune(replace(given, resume=True), quiet=True).record == result.record


def test_a_new_head_is_mixed_with_the_probe_that_is_fitted_beside_it(
    photos: Path, tmp_path: Path, config: Configure, settings: dict[str, Any]
) -> None:
    """The training is the one without; at 0 the model is the probe, as where the training starts at it."""
    ends = {}
    for name, head, share in (("probe", "probe", 0.0), ("start", "random", 0.0), ("half", "random", 0.5)):
        given = settings | {"head": head, "wise": WiSEConfig(share), "steps": 4, "eval_every": 2}
        result = finetune(config(photos, tmp_path / name, method="frozen+wise", **given), quiet=True)
        ends[name] = model_of(tmp_path / name)
        assert list(result.record["method"]["wise"]["validation"]) == [f"{share:g}"]
    given = settings | {"head": "random", "steps": 4, "eval_every": 2}
    finetune(config(photos, tmp_path / "plain", method="frozen", **given), quiet=True)
    assert all(torch.equal(ends["start"][key], value) for key, value in ends["probe"].items() if "num" not in key)
    expected = between(ends["start"], model_of(tmp_path / "plain"), 0.5)
    assert all(torch.equal(ends["half"][key], expected[key]) for key in expected)


def test_a_soup_of_random_heads_is_refused_in_a_line(photos: Path, config: Configure) -> None:
    with pytest.raises(ValueError, match=r"soup cannot work with head random: .*; give --head probe$"):
        config(photos, method="stochnorm+soup").check_used()


def test_what_is_kept_is_chosen_once(photos: Path, config: Configure) -> None:
    with pytest.raises(ValueError, match="soup and wise both change the weights that are kept; choose one"):
        config(photos, method="frozen+soup+wise", head="probe")
