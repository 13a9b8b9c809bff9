"""The doctor measures what was put in, and its advice follows its rules."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from stochnorm.diagnosis import Diagnosis, LayerStatistics
from stochnorm.doctor import diagnose, doctor
from stochnorm.nn import convert, freeze


def batch(mean: float, deviation: float = 1.0, channels: int = 3) -> Tensor:
    """Exactly this mean and standard deviation in each channel: (4, c, 2, 2)."""
    half = torch.full((2, channels, 2, 2), deviation)
    return torch.cat([half, -half]) + mean


def row(name: str = "bn", **values: float) -> LayerStatistics:
    neutral = {"shift": 0.1, "shift_low": 0.0, "shift_high": 0.2, "beyond": 0.0, "scale": 0.1, "noise": 0.05}
    return LayerStatistics(name, 8, **(neutral | {"dead": 0, "awake": 0} | values))  # type: ignore[arg-type]


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
    assert measured.noise == pytest.approx(2**0.5 / 2)
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
    with pytest.raises(ValueError, match="two or more batches to see how they differ, got 1"):
        doctor(nn.BatchNorm2d(3), [batch(0.0)])


@pytest.mark.parametrize(
    ("rows", "says", "does_not_say"),
    [
        ([row()], "fit the data", "far"),
        ([row(shift=0.4)], "at some distance", "frozen statistics are worth"),
        ([row(scale=0.9)], "at some distance", "frozen statistics are worth"),
        ([row(shift=1.5)], "far from the inherited", "p = 0.5 is the place"),
        ([row(scale=2.5)], "far from the inherited", "p = 0.5 is the place"),
        ([row(), row(), row("stem", shift=2.0)], "1 of 3 layers are far off all the same (stem)", "noisy"),
        ([row(noise=0.4)], "noisy at 4 images a batch", "blow"),
        (
            [row(), row("deep", dead=5, awake=2)],
            "2 channels that did not vary in pre-training do so here (in deep)",
            "noisy",
        ),
        ([row(), row("deep", dead=5)], "fit the data", "did not vary"),
    ],
)
def test_advice_follows_the_rules(rows: list[LayerStatistics], says: str, does_not_say: str) -> None:
    advice = " ".join(Diagnosis(rows, images=8, batches=2).advice)
    assert says in advice
    assert does_not_say not in advice
    assert "rules of thumb" in advice


def test_the_table_has_a_line_per_layer_and_the_advice() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    Diagnosis([row("stem", shift=0.31), row("layer4.1.bn2", dead=3)], images=64, batches=2).show(console)
    text = console.export_text()
    assert "stem" in text
    assert "0.31" in text
    assert "layer4.1.bn2" in text
    assert "64 images in 2 batches" in text
    assert "rules of thumb" in text


def test_the_plot_is_written_whatever_is_dead(tmp_path: Path) -> None:
    nan = math.nan
    dead = row("blocks.1.bn", shift=nan, shift_low=nan, shift_high=nan, scale=nan, noise=nan)
    Diagnosis([row("stem"), row("blocks.0.bn1"), dead], images=64, batches=2).plot(tmp_path / "doctor")
    with Image.open(tmp_path / "doctor.png") as picture:
        assert picture.width > 800
    assert (tmp_path / "doctor.svg").is_file()


def test_a_backbone_is_diagnosed_on_a_folder(photos: Path) -> None:
    settings = {"weights": "random", "image_size": 32, "batch_size": 8}
    found = diagnose("resnet18", photos, **settings, max_images=17)  # type: ignore[arg-type]
    assert (len(found.rows), found.images, found.batches) == (20, 16, 2)
    assert diagnose("resnet18", photos, **settings, max_images=17) == found  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="15 training images are fewer than two batches of 8"):
        diagnose("resnet18", photos, **settings, max_images=15)  # type: ignore[arg-type]
