"""The doctor measures what was put in, on the images that training would use."""

from __future__ import annotations

import copy
import math
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from stochnorm.cli.main import main
from stochnorm.doctor.diagnose import diagnose, doctor
from stochnorm.models import build_classifier, save_classifier
from stochnorm.nn import convert, freeze
from stochnorm.training.display import Display


def batch(mean: float, deviation: float = 1.0, channels: int = 3) -> Tensor:
    """Make a batch with exactly this mean and standard deviation in each channel: (4, c, 2, 2)."""
    half = torch.full((2, channels, 2, 2), deviation)
    return torch.cat([half, -half]) + mean


SMALL: dict[str, Any] = {"weights": "random", "image_size": 32, "batch_size": 8, "quiet": True}


def test_shift_scale_and_noise_are_those_put_in() -> None:
    layer = nn.BatchNorm2d(3, eps=1e-9)
    layer.running_mean.fill_(1.0)
    layer.running_var.fill_(4.0)
    # Batch means 4 and 6: together 5, which is 2 sigma off; variance 15 + 1, four times the inherited one.
    found = doctor(layer, [batch(4.0, 15**0.5), batch(6.0, 15**0.5)])
    (measured,) = found.rows
    assert (measured.name, measured.channels) == ("BatchNorm2d", 3)
    assert measured.shift == pytest.approx(2.0)
    assert measured.scale == pytest.approx(2.0)
    assert measured.noise == pytest.approx(2**0.5 / 4)  # in standard deviations of the data, sqrt(16)
    assert measured.beyond == 1.0
    assert (measured.dead, measured.awake) == (0, 0)
    assert (found.images, found.batches) == (8, 2)


def test_medians_and_shares_are_over_channels() -> None:
    layer = nn.BatchNorm2d(3)
    layer.running_mean.copy_(torch.tensor([0.0, 0.5, 3.0]))
    (measured,) = doctor(layer, [batch(0.0), batch(0.0)]).rows
    assert measured.shift == pytest.approx(0.5, abs=1e-4)
    assert measured.shift_low == pytest.approx(0.1, abs=1e-4)
    assert measured.shift_high == pytest.approx(2.5, abs=1e-4)
    assert measured.beyond == pytest.approx(1 / 3)
    assert measured.noise == 0.0


def test_noise_does_not_depend_on_the_unit_of_the_data_nor_on_what_was_inherited() -> None:
    layer = nn.BatchNorm2d(3)
    noises = [doctor(layer, [batch(1.0, 4.0) * unit, batch(3.0, 4.0) * unit]).rows[0].noise for unit in (1, 10, 100)]
    layer.running_var.fill_(100.0)
    noises.append(doctor(layer, [batch(1.0, 4.0), batch(3.0, 4.0)]).rows[0].noise)
    assert noises == pytest.approx([2**0.5 / 17**0.5] * 4, rel=1e-5)


def test_dead_channels_are_counted_and_left_out_of_the_medians() -> None:
    layer = nn.BatchNorm2d(3)
    layer.running_var.copy_(torch.tensor([1.0, 0.0, 0.0]))
    x = batch(0.0)
    x[:, 2] = 0.0
    (measured,) = doctor(layer, [x, x]).rows
    assert (measured.dead, measured.awake) == (2, 1)
    assert measured.shift == pytest.approx(0.0)
    layer.running_var.zero_()
    assert math.isnan(doctor(layer, [x, x]).rows[0].shift)


def test_batches_count_by_their_images() -> None:
    layer = nn.BatchNorm2d(3)
    assert doctor(layer, [batch(1.0)[:1].repeat(3, 1, 1, 1) - 2.0, batch(0.0)[:1] + 3.0]).rows[0].shift == (
        pytest.approx((3 * 0.0 + 4.0) / 4, abs=1e-4)
    )


def test_layers_come_in_the_order_they_run_and_see_what_inference_gives_them() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.BatchNorm2d(3)
            self.unused = nn.BatchNorm2d(3)
            self.first = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))  # type: ignore[no-any-return]

    net = Net()
    net.first.running_mean.fill_(-1.0)  # passes the data on, 1 higher
    rows = doctor(net, [batch(0.0), batch(0.0)]).rows
    assert [r.name for r in rows] == ["first", "second"]
    assert [r.shift for r in rows] == pytest.approx([1.0, 1.0], abs=1e-4)


@pytest.mark.parametrize("prepare", [lambda m: m, convert, freeze])
def test_the_model_is_as_before(prepare: object) -> None:
    model = prepare(nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.BatchNorm2d(3)))  # type: ignore[operator]
    model[1].eval()
    state, flags = copy.deepcopy(model.state_dict()), [m.training for m in model]
    first = doctor(model, [batch(0.0), batch(2.0)])
    assert doctor(model, [(batch(0.0), None), (batch(2.0), None)]) == first
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [m.training for m in model] == flags
    assert not any(m._forward_pre_hooks for m in model)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="Linear has no normalization layer with moving statistics"):
        doctor(nn.Linear(2, 2), [batch(0.0)])
    with pytest.raises(ValueError, match="at least two batches to compare them, got 1"):
        doctor(nn.BatchNorm2d(3), [batch(0.0)])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_an_error_that_says_where(value: float) -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match="in batch 2, the input of 0 has NaN or infinity"):
        doctor(model, [batch(0.0), batch(value)])
    assert not any(m._forward_pre_hooks for m in model)
    model[1].running_mean[1] = value
    with pytest.raises(ValueError, match="the moving statistics of 1 have NaN or infinity"):
        doctor(model, [batch(0.0), batch(0.0)])


def test_a_backbone_is_diagnosed_on_a_folder(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = diagnose("resnet18", photos, **SMALL, max_images=17)
    assert (len(found.rows), found.images, found.batches) == (20, 16, 2)
    assert (found.subject, found.inherited) == ("resnet18 on photos at 32 px", False)
    assert diagnose("resnet18", photos, **SMALL, max_images=17) == found
    assert diagnose("resnet18", photos, **SMALL, max_images=17, seed=1) != found
    assert capsys.readouterr().out == ""  # quiet


def test_the_weights_are_those_asked_for(photos: Path, tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    state["conv1.1.running_mean"].fill_(1000.0)
    torch.save(state, tmp_path / "weights.pth")
    found = diagnose("test_resnet", photos, **(SMALL | {"weights": str(tmp_path / "weights.pth")}))
    assert found.rows[0].shift > 900
    assert found.inherited


def test_validation_and_test_images_are_not_used(tmp_path: Path, write_images: Callable[..., list[Path]]) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / "photos/train" / name, 8)
        for split in ("val", "test"):  # opened, they would be warned of, which is an error here
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            (tmp_path / "photos" / split / name / "broken.png").write_text("no image")
    assert diagnose("test_resnet", tmp_path / "photos", **SMALL).images == 16


def test_the_images_are_those_of_the_rate_or_of_the_lists(photos: Path, tmp_path: Path) -> None:
    assert diagnose("test_resnet", photos, **(SMALL | {"batch_size": 2})).images == 18
    assert diagnose("test_resnet", photos, **(SMALL | {"batch_size": 2}), rate=50).images == 8
    (tmp_path / "train.txt").write_text("".join(f"red/{i:03d}.png\n" for i in range(4)))
    for split in ("val", "test"):
        (tmp_path / f"{split}.txt").write_text(f"blue/{split != 'val':03d}.png\n")
    assert diagnose("test_resnet", photos, **(SMALL | {"batch_size": 2}), split_lists=tmp_path).images == 4


def test_a_run_is_diagnosed_by_its_own_statistics(photos: Path, tmp_path: Path) -> None:
    classifier = build_classifier("test_resnet", "random", ("a", "b"), image_size=32)
    classifier.model.get_buffer("conv1.1.running_mean").fill_(1000.0)
    save_classifier(tmp_path / "model.safetensors", classifier, {})
    found = diagnose(str(tmp_path), photos, batch_size=8, quiet=True)
    assert found.rows[0].shift > 900
    assert found.inherited
    assert found.subject == f"test_resnet of {tmp_path} on photos at 32 px"
    assert f"--backbone test_resnet --weights {tmp_path} " in found.advice[0]
    assert diagnose(str(tmp_path), photos, batch_size=8, image_size=48, quiet=True).subject.endswith(" at 48 px")
    with pytest.raises(ValueError, match="is a run, which has its weights; remove --weights random"):
        diagnose(str(tmp_path), photos, **SMALL)
    with pytest.raises(FileNotFoundError, match=r"no such model; choose a run directory"):
        diagnose(str(photos), photos, batch_size=8)


def test_a_run_cannot_take_every_size(photos: Path, tmp_path: Path) -> None:
    classifier = build_classifier("small/inception_v3", "random", ("a", "b"), auxiliary=False)
    save_classifier(tmp_path / "model.safetensors", classifier, {})
    with pytest.raises(ValueError, match="small/inception_v3 cannot take images of 4 px"):
        diagnose(str(tmp_path), photos, batch_size=8, image_size=4, quiet=True)


def test_reading_and_comparing_show_their_progress(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, float]] = []

    def track(self: Display, items: Iterable[Tensor], *, description: str, total: int) -> Iterable[Tensor]:
        shown.append((description, total))
        return items

    @contextmanager
    def measuring(self: Display, what: str) -> Iterator[Callable[[float], None]]:
        yield lambda fraction: shown.append((what, fraction))

    monkeypatch.setattr(Display, "track", track)
    monkeypatch.setattr(Display, "measuring", measuring)
    diagnose("test_resnet", photos, **SMALL)
    assert shown == [("Reading images", 18), ("Comparing statistics", 0.0), ("Comparing statistics", 0.5)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 2, got 0"),
        ({"batch_size": -4}, "batch_size must be at least 2, got -4"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"image_size": -5}, "image_size must be at least 0, got -5"),
        ({"max_images": 0}, "max_images must be at least two batches of 8, got 0; use --max-images 16 or more"),
        ({"max_images": -5}, "max_images must be at least two batches of 8, got -5"),
        ({"max_images": 15}, "max_images must be at least two batches of 8, got 15"),
        ({"batch_size": 16}, "18 training images are fewer than two batches of 16; use a smaller --batch-size"),
        ({"rate": 0}, r"rate must be in \(0, 100\]"),
        ({"backbone": "test_vit"}, "test_vit has no BatchNorm layer .* choose a backbone with BatchNorm"),
    ],
)
def test_settings_that_cannot_work_are_errors(settings: dict[str, Any], message: str, photos: Path) -> None:
    with pytest.raises(ValueError, match=message):
        diagnose(**{"backbone": "test_resnet", "data": photos, **SMALL, **settings})


def test_auxiliary_classifiers_are_not_needed(photos: Path) -> None:
    rows = diagnose("torchvision/inception_v3", photos, **(SMALL | {"image_size": 96})).rows
    assert not any("Aux" in r.name for r in rows)


def test_the_verdict_is_the_planned_training_as_a_command(photos: Path) -> None:
    found = diagnose("test_resnet", photos, **SMALL, rate=80, seed=3)
    options = "--backbone test_resnet --weights random --batch-size 8 --image-size 32 --rate 80"
    command, data, *given = shlex.split(found.advice[0].removeprefix("stochnorm "))
    assert (command, data) == ("finetune", str(photos))
    assert sorted(given) == sorted([*options.split(), "--method", "auto"])


def test_the_command_shows_few_layers_and_writes_no_picture_unasked(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = "--weights random --image-size 32 --batch-size 4 --device cpu"
    assert main(["doctor", "test_resnet", str(photos), *options.split()]) == 0
    few = capsys.readouterr().out
    assert "8 farthest of" in few
    assert not (tmp_path / "doctor.png").exists()
    assert not (tmp_path / "doctor.svg").exists()
    assert main(["doctor", "test_resnet", str(photos), *options.split(), "--all"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > len(few.splitlines())


def test_the_command_prints_its_input_and_writes_its_files(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--weights random --image-size 32 --batch-size 4 --max-images 9 --rate 80 --seed 3 --device cpu"
    files = ["--out", str(tmp_path), "--csv", str(tmp_path / "rows.csv")]
    assert main(["doctor", "test_resnet", str(photos), *options.split(), *files]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "9 training images of" in said
    assert "in batches of 4, through test_resnet with random weights at 32 px" in said
    assert "there are no inherited statistics" in said
    assert f"picture: {tmp_path}/doctor.png" in said
    assert (tmp_path / "doctor.svg").is_file()
    assert len((tmp_path / "rows.csv").read_text().splitlines()) > 5
    assert main(["doctor", "test_resnet", str(photos), "--csv", str(tmp_path)]) == 1  # before anything is computed
    assert "it is a folder; choose a file name" in capsys.readouterr().err
