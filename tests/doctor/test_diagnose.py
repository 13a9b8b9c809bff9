"""The doctor measures what was put in, and its advice follows its rules."""

from __future__ import annotations

import copy
import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from stochnorm.cli.main import main
from stochnorm.doctor.advice import all_but
from stochnorm.doctor.diagnose import diagnose, doctor
from stochnorm.doctor.diagnosis import Diagnosis, LayerStatistics
from stochnorm.doctor.plot import draw_diagnosis
from stochnorm.models import build_classifier, save_classifier
from stochnorm.nn import convert, freeze, name_matches
from stochnorm.training.display import Display


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
    with pytest.raises(ValueError, match="two or more batches to see how they differ, got 1"):
        doctor(nn.BatchNorm2d(3), [batch(0.0)])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_an_error_that_says_where(value: float) -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match="in batch 2, the input of 0 holds NaN or infinity"):
        doctor(model, [batch(0.0), batch(value)])
    assert not any(m._forward_pre_hooks for m in model)
    model[1].running_mean[1] = value
    with pytest.raises(ValueError, match="the moving statistics of 1 hold NaN or infinity"):
        doctor(model, [batch(0.0), batch(0.0)])


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
        ([row(noise=0.4)], "larger batches, or a smaller p, would", "p near 1"),
        ([row(noise=0.4, shift=1.5)], "larger batches would", "smaller p"),
        ([row(noise=0.4, scale=2.5)], "larger batches would", "smaller p"),
        ([row(shift=1.5)], "(--statistics target)", "smaller p"),
        ([row(), row(), row("stem", shift=2.0)], "leave it out: --norm-layers '^(?!stem\\b)'", "nothing to advise"),
        ([row("a"), row("b", shift=2.0), row("c", awake=1)], "--norm-layers '^(?!(b|c)\\b)'", "nothing to advise"),
        ([row("a", shift=2.0), row("b", shift=2.0), row("c", awake=1)], "--norm-layers '^(?!c\\b)'", "all the same"),
        ([row("bn", awake=1)], "leave these layers out", "--norm-layers"),
        ([row(shift=math.nan, scale=math.nan)], "No channel varied in pre-training", "nan"),
    ],
)
def test_advice_follows_the_rules(rows: list[LayerStatistics], says: str, does_not_say: str) -> None:
    advice = " ".join(Diagnosis(rows, images=8, batches=2).advice)
    assert says in advice
    assert does_not_say not in advice
    assert ("rules of thumb" in advice) is ("nothing to advise" not in advice)


def test_random_weights_get_no_advice() -> None:
    (line,) = Diagnosis([row(shift=9.0)], images=8, batches=2, inherited=False).advice
    assert "random, so nothing was inherited" in line


@pytest.mark.parametrize(
    ("unwanted", "pattern"),
    [
        (["blocks.5.0.bn1", "blocks.5.1.bn1"], r"^(?!blocks[.]5\b)"),
        (["blocks.5.0.bn1"], r"^(?!blocks[.]5[.]0\b)"),
        (["bn", "blocks.50.bn1"], r"^(?!(bn|blocks[.]50)\b)"),
        (["blocks.5.1.bn1", "blocks.50.bn1"], r"^(?!blocks[.](5[.]1|50)\b)"),
    ],
)
def test_the_pattern_leaves_out_those_layers_alone(unwanted: list[str], pattern: str) -> None:
    layers = ["bn", "bn2", "blocks.5.0.bn1", "blocks.5.1.bn1", "blocks.50.bn1"]
    assert all_but(unwanted, layers) == pattern
    where = name_matches(pattern)
    assert [name for name in layers if not where(name, nn.BatchNorm2d(3))] == [n for n in layers if n in unwanted]


def test_the_table_has_a_line_per_layer_and_the_advice() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    Diagnosis([row("stem", shift=0.31), row("layer4.1.bn2", dead=3)], images=64, batches=2).show(console)
    text = console.export_text()
    assert "stem" in text
    assert "0.31" in text
    assert "layer4.1.bn2" in text
    assert "64 images in 2 batches" in text
    assert "rules of thumb" in text


def show(rows: list[LayerStatistics], **terminal: object) -> list[str]:
    console = Console(width=80, file=io.StringIO(), **terminal)  # type: ignore[arg-type]
    Diagnosis(rows, images=64, batches=2).show(console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_a_layer_is_one_line_of_80_columns() -> None:
    name = "Mixed_6b.branch7x7dbl_5.bn"
    lines = [line for line in show([row(name, shift=1e8, dead=639)], force_terminal=True) if "Mixed" in line]
    assert len(lines) == 1
    assert all(cell in lines[0] for cell in (name, "1e+08", "639"))


def test_a_long_name_is_whole_in_a_file_and_folded_in_a_terminal() -> None:
    name = "features.denseblock1.denselayer10." + 20 * "x"
    assert sum(name in line for line in show([row(name)])) == 1
    first, second = (
        line for line in show([row(name)], force_terminal=True, color_system=None) if "xx" in line or "dens" in line
    )
    assert first.split()[0] + second.strip() == name


def test_the_pattern_of_the_advice_is_not_broken() -> None:
    rows = [row(f"blocks.{i}.0.bn1", awake=i % 2) for i in range(20)]
    assert any(line.endswith("--norm-layers '^(?!blocks[.](1|3|5|7|9|11|13|15|17|19)\\b)'") for line in show(rows))


def test_the_rows_are_written_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    Diagnosis([row("stem", shift=1 / 3), row("bn", shift=math.nan, dead=8)], images=64, batches=2).to_csv(path)
    stem, bn = csv.DictReader(path.read_text().splitlines())
    assert (stem["name"], stem["channels"], stem["shift"], stem["dead"]) == ("stem", "8", "0.333333", "0")
    assert (bn["shift"], bn["dead"]) == ("", "8")


def test_the_plot_is_written_whatever_is_dead(tmp_path: Path) -> None:
    nan = math.nan
    dead = row("blocks.1.bn", shift=nan, shift_low=nan, shift_high=nan, scale=nan, noise=nan)
    Diagnosis([row("stem"), row("blocks.0.bn1"), dead], images=64, batches=2).plot(tmp_path / "doctor")
    with Image.open(tmp_path / "doctor.png") as picture:
        assert picture.width > 800
    assert (tmp_path / "doctor.svg").is_file()


def stage_labels(names: list[str]) -> dict[float, str]:
    axes = draw_diagnosis(Diagnosis([row(name) for name in names], images=64, batches=2)).axes[-1]
    return {tick: text.get_text() for tick, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)}


def test_the_plot_has_a_title_and_stages_without_what_all_begin_with() -> None:
    names = [f"features.block{i}.{j}.norm" for i in (1, 2) for j in range(3)]
    assert stage_labels(names) == {1: "block1", 4: "block2"}
    figure = draw_diagnosis(Diagnosis([row(name) for name in names], 64, 2, subject="vgg on photos at 32 px"))
    assert figure.get_suptitle() == "vgg on photos at 32 px: 64 images in batches of 32"
    assert "layer of features," in figure.axes[-1].get_xlabel()


def test_stage_labels_do_not_overlap_and_the_larger_stage_has_its_own() -> None:
    names = ["bn1", *(f"layer1.{i}.bn" for i in range(60)), "norm"]
    assert stage_labels(names) == {2: "layer1", 62: "norm"}


def test_many_stages_are_named_by_their_first_part() -> None:
    names = [f"Mixed_{i}b.branch{j}x1.bn" for i in range(3) for j in range(9)]
    assert stage_labels(names) == {1: "Mixed_0b", 10: "Mixed_1b", 19: "Mixed_2b"}


@pytest.mark.parametrize("largest", [3.0, 80.0, 1e10])
def test_near_and_far_stand_apart_however_large_the_shift_is(largest: float) -> None:
    figure = draw_diagnosis(Diagnosis([row(), row(shift=largest / 2, shift_high=largest)], images=64, batches=2))
    axes = figure.axes[0]
    near, far, top = (
        axes.transAxes.inverted().transform(axes.transData.transform((1, y)))[1] for y in (0.25, 1, largest)
    )
    assert near > 0.05
    assert far - near > 0.1
    assert far < top < 0.9  # below the legend


@pytest.mark.parametrize("name", ["doctor", "fig.v1", "doctor.png", "doctor.svg", ""])
def test_a_picture_keeps_its_name_and_goes_into_a_folder(name: str, tmp_path: Path) -> None:
    Diagnosis([row()], images=64, batches=2).plot(tmp_path / name)
    stem = "fig.v1" if name == "fig.v1" else "doctor"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{stem}.png", f"{stem}.svg"]


SMALL: dict[str, Any] = {"weights": "random", "image_size": 32, "batch_size": 8, "quiet": True}


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


def test_validation_and_test_images_stay_shut(tmp_path: Path, write_images: Callable[..., list[Path]]) -> None:
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
    assert diagnose(str(tmp_path), photos, batch_size=8, image_size=48, quiet=True).subject.endswith(" at 48 px")
    with pytest.raises(ValueError, match="is a run, with weights of its own; leave out --weights random"):
        diagnose(str(tmp_path), photos, **SMALL)
    with pytest.raises(FileNotFoundError, match=r"no such model; give a directory that stochnorm finetune made"):
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
        ({"max_images": 0}, "max_images 0 is fewer than two batches of 8; give --max-images 16 or more"),
        ({"max_images": -5}, "max_images -5 is fewer than two batches of 8"),
        ({"max_images": 15}, "max_images 15 is fewer than two batches of 8"),
        ({"batch_size": 16}, "18 training images are fewer than two batches of 16; give a smaller --batch-size"),
        ({"rate": 0}, r"rate must be in \(0, 100\]"),
        ({"backbone": "test_vit"}, "test_vit has no BatchNorm layer .* choose a backbone that normalizes by batch"),
    ],
)
def test_settings_that_cannot_work_are_errors(settings: dict[str, Any], message: str, photos: Path) -> None:
    with pytest.raises(ValueError, match=message):
        diagnose(**{"backbone": "test_resnet", "data": photos, **SMALL, **settings})


def test_auxiliary_classifiers_are_not_needed(photos: Path) -> None:
    rows = diagnose("torchvision/inception_v3", photos, **(SMALL | {"image_size": 96})).rows
    assert not any("Aux" in r.name for r in rows)


def test_the_command_says_what_it_looks_at_and_writes_what_it_is_asked_for(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--weights random --image-size 32 --batch-size 4 --max-images 9 --rate 80 --seed 3 --device cpu"
    files = ["--out", str(tmp_path), "--csv", str(tmp_path / "rows.csv")]
    assert main(["doctor", "test_resnet", str(photos), *options.split(), *files]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "9 training images of" in said
    assert "in batches of 4, through test_resnet with random weights at 32 px" in said
    assert "nothing was inherited" in said
    assert f"picture: {tmp_path}/doctor.png" in said
    assert (tmp_path / "doctor.svg").is_file()
    assert len((tmp_path / "rows.csv").read_text().splitlines()) > 5
    assert main(["doctor", "test_resnet", str(photos), "--csv", str(tmp_path)]) == 1  # before anything is computed
    assert "it is a folder; give the name of a file" in capsys.readouterr().err
