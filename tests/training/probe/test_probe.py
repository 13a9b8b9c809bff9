"""The linear probe of a run: what it is fitted on, its choice of strength, and the head that results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stochnorm.training.job
from stochnorm import FinetuneConfig, build_classifier, evaluate, finetune, predict, tune
from stochnorm.models import load_classifier
from stochnorm.runs.directory import Run
from stochnorm.training.display import Display
from stochnorm.training.job import Job, assemble
from stochnorm.training.probe.features import features, views_of
from stochnorm.training.probe.probe import Tried, chosen, fit_probe, put_into_head

Make = Callable[..., FinetuneConfig]


def job_of(config: FinetuneConfig) -> Job:
    return assemble(config, Run.of(config), Display(quiet=True))


@pytest.fixture
def probe(config: Make) -> Make:
    return lambda data, out="", **options: config(data, out, method="probe", **options).without_unused()


def test_features_with_the_head_are_the_logits(config: Make, photos: Path, tmp_path: Path) -> None:
    job = job_of(config(photos, tmp_path / "run"))
    found = features(job.classifier, job.splits["val"], job.fabric, views="flip", batch_size=4)
    assert found.shape[:2] == (2, len(job.splits["val"]))
    images = torch.stack([job.splits["val"].store[i] for i in job.splits["val"].indices])
    preprocessing = job.classifier.preprocessing
    views = views_of(images, preprocessing, "flip")
    job.classifier.model.eval()
    (head,) = job.classifier.head
    for number in (0, 1):
        with torch.no_grad():
            logits = job.classifier.model(preprocessing.normalize(views[:, number]))
            torch.testing.assert_close(head(found[number]), logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(views[:, 1], views[:, 0].flip(-1))


def test_the_first_of_the_crops_is_the_center(photos: Path, config: Make) -> None:
    preprocessing = build_classifier("test_resnet", "random", ("a", "b"), image_size=32).preprocessing
    images = torch.randint(0, 256, (2, 3, preprocessing.resize, preprocessing.resize), dtype=torch.uint8)
    crops = views_of(images, preprocessing, "crops")
    assert crops.shape[1] == 10
    assert torch.equal(crops[:, 0], preprocessing.center_crop(images))


def test_a_network_without_a_linear_head_is_refused(config: Make, photos: Path, tmp_path: Path) -> None:
    """A ReLU behind the head, as in SqueezeNet: the probe's logits would not be the network's."""
    job = job_of(config(photos, tmp_path / "run"))
    model: Any = job.classifier.model
    model.fc = nn.Sequential(model.fc, nn.ReLU())
    with pytest.raises(ValueError, match="the probe needs a backbone whose logits are one linear layer"):
        fit_probe(job.classifier, job.splits, job.fabric, job.task)


def test_a_probe_is_an_ordinary_run(probe: Make, photos: Path, tmp_path: Path) -> None:
    settings = probe(photos, tmp_path / "run", report=True)
    start = job_of(settings).classifier.model.state_dict()
    result = finetune(settings, quiet=True)
    run = Run(result.run)
    assert result.test is not None
    assert result.test["top1"] == 100  # three colors
    saved = load_classifier(result.run).model.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in start.items() if "num_batches" not in name)
    (record,) = run.read_metrics()
    assert record["step"] == 0
    assert record["val_top1"] == result.record["probe"]["val_top1"]
    page = run.report.read_text(encoding="utf-8")
    assert "probe" in page
    assert "100.0 % top-1 accuracy" in page
    assert evaluate(result.run).metrics["top1"] == 100
    (answer,) = predict(result.run, [str(photos / "red" / "000.png")])
    assert answer.label == "red"
    again = finetune(probe(photos, tmp_path / "run", resume=True), quiet=True)
    assert again.record == result.record


def test_few_images_are_all_fitted_on_and_the_validation_stays_honest(
    probe: Make, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = finetune(probe(photos, tmp_path / "few"), quiet=True).record
    counts = few["images"]
    assert few["probe"]["fitted_on"] == "train and validation"
    assert few["probe"]["images"] == counts["train"] + counts["val"]
    assert "cross-validation" in few["selected"]["by"]
    assert few["validation"]["loss"] == few["probe"]["val_loss"]
    job = job_of(probe(photos, tmp_path / "few"))
    warm = fit_probe(job.classifier, job.splits, job.fabric, job.task)
    assert warm.fitted_on == "train"
    assert warm.validation["loss"] == pytest.approx(few["probe"]["val_loss"])  # of the head that has not seen them
    monkeypatch.setattr("stochnorm.training.probe.probe.FEW", 1)
    many = finetune(probe(photos, tmp_path / "many"), quiet=True).record
    assert many["probe"]["fitted_on"] == "train"
    assert many["probe"]["images"] == counts["train"]


def test_training_starts_at_the_probe(
    config: Make, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(photos, tmp_path / "run", method="vanilla+l2sp", head="probe", steps=1, lr=1e-9)
    result = finetune(settings, quiet=True)
    job = job_of(config(photos, tmp_path / "run", head="probe"))
    assert job.probe is not None
    weight = load_classifier(result.run).model.get_parameter("fc.weight")
    torch.testing.assert_close(weight, job.probe.head.weight, atol=1e-6, rtol=1e-4)
    assert result.record["probe"]["val_top1"] == job.probe.validation["top1"]


def test_a_random_head_is_fitted_to_nothing(
    config: Make, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stochnorm.training.job, "fit_probe", lambda *_, **__: pytest.fail("fitted"))
    assert "probe" not in finetune(config(photos, tmp_path / "run", steps=1), quiet=True).record


def test_the_checkpoint_decides_on_resume(
    config: Make, photos: Path, tmp_path: Path, stop_at: Callable[..., None]
) -> None:
    whole = finetune(config(photos, tmp_path / "whole", head="probe"), quiet=True)
    stop_at(6, config(photos, tmp_path / "parts", head="probe"))
    parts = finetune(config(photos, tmp_path / "parts", head="probe", resume=True), quiet=True)
    wanted, found = (load_classifier(result.run).model.state_dict() for result in (whole, parts))
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_a_training_that_ends_below_the_probe_says_so(
    config: Make, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(photos, tmp_path / "run", method="vanilla", head="probe", lr=1.0, head_lr_factor=10.0, steps=2)
    result = finetune(FinetuneConfig(**settings.as_fields() | {"report": True, "select": "last", "eval_every": 2}))
    assert result.validation["top1"] < result.record["probe"]["val_top1"]
    for text in (result.record["probe"]["warning"], capsys.readouterr().out, Run(result.run).report.read_text()):
        assert "training ended below the probe that it started at" in " ".join(text.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "probe", "lr": 0.1}, "method probe does not train, so lr 0.1 has no effect; remove it"),
        ({"method": "vanilla", "probe": "crops"}, "probe.views crops is for --method probe and --head probe"),
        ({"head": "probe", "statistics": "target"}, "head probe needs the inherited statistics, got target"),
    ],
)
def test_settings_without_effect_are_an_error(photos: Path, options: dict[str, Any], message: str) -> None:
    from stochnorm.methods.probe import ProbeConfig

    if "probe" in options:
        options = options | {"probe": ProbeConfig(options["probe"])}
    with pytest.raises(ValueError, match=message):
        finetune(FinetuneConfig(str(photos), **options), quiet=True)


def test_settings_of_a_training_are_reset_for_the_probe(photos: Path) -> None:
    given = FinetuneConfig(str(photos), method="probe", steps=5, lr=0.1, head="probe", rate=50)
    assert given.without_unused().changed() == {"method": "probe", "rate": 50}


def test_a_search_of_the_probe_is_refused(probe: Make, photos: Path) -> None:
    pytest.importorskip("optuna")
    with pytest.raises(ValueError, match="method probe has nothing to search"):
        tune(probe(photos), quiet=True)


def test_the_lowest_loss_is_chosen_among_scores_that_are_not_clearly_worse() -> None:
    tried = [Tried(60.0, 2.0), Tried(58.0, 1.0), Tried(30.0, 0.5)]
    assert chosen(tried, images=100) == 1
    assert chosen(tried, images=100_000) == 0


def test_several_labels_have_a_regression_each(probe: Make, photos: Path, tmp_path: Path) -> None:
    rows = ["path,label"]
    for name, label in (("blue", "cold"), ("green", ""), ("red", "warm|strong")):
        rows += [f"{name}/{i:03d}.png,{label}" for i in range(10)]
    table = photos / "findings.csv"
    table.write_text("\n".join(rows).replace("path,label", "path,labels") + "\n")
    result = finetune(probe(table, tmp_path / "run"), quiet=True)
    assert result.test is not None
    assert result.test["mean_auc"] == 100
    assert json.loads(Run(result.run).result.read_text())["probe"]["val_mean_auc"] == 100


def test_put_into_head_gives_the_logits_of_the_probe(config: Make, photos: Path, tmp_path: Path) -> None:
    job = job_of(config(photos, tmp_path / "run"))
    probe = fit_probe(job.classifier, job.splits, job.fabric, job.task)
    center = features(job.classifier, job.splits["val"], job.fabric, views="center", batch_size=4)[0]
    put_into_head(job.classifier, probe.head)
    torch.testing.assert_close(job.classifier.head[0](center), probe.head(center))


def test_the_command_compare_adds_the_probe_by_itself(photos: Path) -> None:
    from stochnorm.cli.compare import Compare

    def labels(**options: Any) -> list[str]:
        return [variant.label for variant in Compare(str(photos), steps=5, **options).grid().variants]

    assert labels() == ["vanilla", "stochnorm", "probe"]
    assert labels(grid_probe=False) == ["vanilla", "stochnorm"]
    assert labels(methods="probe,vanilla") == ["probe", "vanilla"]
    probes = [run.config for run in Compare(str(photos), steps=5).grid().runs() if run.variant == "probe"]
    assert all(run.changed().get("steps") is None for run in probes)


@pytest.mark.filterwarnings("ignore:.*byte for byte")
def test_balance_gives_the_classes_of_the_probe_equal_weight(
    probe: Make, tmp_path: Path, write_images: Callable[..., list[Path]]
) -> None:
    """Two classes that look alike, one with four times as many images: only balanced, the smaller one has half."""
    for name, images in (("many", 40), ("few", 10)):
        write_images(tmp_path / "alike" / name, images, (90, 90, 90))
    recall = {}
    for balance in (False, True):
        result = finetune(
            probe(tmp_path / "alike", tmp_path / f"{balance}", balance=balance, test_fraction=0), quiet=True
        )
        answers = list(predict(result.run, sorted((tmp_path / "alike" / "few").iterdir())))
        recall[balance] = sum(answer.probabilities["few"] for answer in answers) / len(answers)
    assert recall[False] < 0.4
    assert recall[True] == pytest.approx(0.5, abs=0.15)
