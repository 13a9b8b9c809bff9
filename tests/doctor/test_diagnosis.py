"""Advice follows its rules; a diagnosis is a table, a CSV file and a figure."""

from __future__ import annotations

import csv
import io
import math
import shlex
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from stochnorm.cli.main import parse
from stochnorm.doctor.diagnosis import Diagnosis
from stochnorm.doctor.plot import draw_diagnosis
from stochnorm.doctor.statistics import LayerStatistics


def row(name: str = "bn", **values: float) -> LayerStatistics:
    neutral = {"shift": 0.1, "shift_low": 0.0, "shift_high": 0.2, "beyond": 0.0, "scale": 0.1, "noise": 0.05}
    return LayerStatistics(name, 8, **(neutral | {"dead": 0, "awake": 0} | values))  # type: ignore[arg-type]


def show(rows: list[LayerStatistics], **terminal: object) -> list[str]:
    console = Console(width=80, file=io.StringIO(), **terminal)  # type: ignore[arg-type]
    Diagnosis(rows, images=64, batches=2).show(console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def stage_labels(names: list[str]) -> dict[float, str]:
    axes = draw_diagnosis(Diagnosis([row(name) for name in names], images=64, batches=2)).axes[-1]
    return {tick: text.get_text() for tick, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([row()], "near the inherited statistics: in the median layer, means differ by 0.10 sigma"),
        ([row(shift=0.4)], "at some distance from"),
        ([row(scale=0.9)], "variances 1.9-fold"),
        ([row(shift=1.5)], "far from the inherited statistics"),
        ([row(scale=2.5)], "far from the inherited statistics"),
        ([row(), row(), row("stem", shift=2.0)], "1 of 3 layers are far"),
        ([row(noise=0.4)], "Batch means vary by 0.40 sigma at 4 images per batch"),
        ([row(shift=math.nan, scale=math.nan)], "No channel varied in pre-training"),
    ],
)
def test_the_statistics_are_said_and_nothing_is_derived_from_them(rows: list[LayerStatistics], says: str) -> None:
    command, *said = Diagnosis(rows, images=8, batches=2, training="photos/").advice
    assert says in said[0]
    assert command == Diagnosis([row()], images=8, batches=2, training="photos/").advice[0]
    assert not any(word in " ".join(said) for word in ("do not freeze", "exclude", "use p"))


def test_random_weights_have_nothing_to_compare_with() -> None:
    _, line = Diagnosis([row(shift=9.0)], images=8, batches=2, inherited=False).advice
    assert "random, so there are no inherited statistics" in line


def test_the_verdict_comes_first_and_is_a_command_in_one_piece() -> None:
    training = "photos/of\\ mine --backbone resnet50 --image-size 160 --batch-size 16 --rate 50"
    console = Console(width=80, file=io.StringIO())
    Diagnosis([row()], images=64, batches=2, training=training).show(console)
    first, *_ = console.file.getvalue().strip().splitlines()  # type: ignore[attr-defined]
    assert first == f"stochnorm finetune {training} --method auto"


def test_the_command_is_one_that_stochnorm_accepts() -> None:
    command = Diagnosis([row()], images=8, batches=2, training="photos/ --batch-size 16").advice[0]
    asked = parse(shlex.split(command)[1:])
    assert (type(asked).__name__, asked.method, asked.batch_size) == ("Finetune", "auto", 16)


def test_the_table_has_the_farthest_layers_or_all_in_order() -> None:
    rows = [row(f"layer{i}", shift=i / 10) for i in range(9)] + [row("deep", scale=3.0), row("dead", shift=math.nan)]
    rows[-1] = row("dead", shift=math.nan, scale=math.nan)

    def names(layers: int | None) -> list[str]:
        console = Console(width=120, file=io.StringIO())
        Diagnosis(rows, images=64, batches=2).show(console, layers=layers)
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        found = [line.split()[0] for line in lines if line[:4] in ("laye", "deep", "dead")]
        assert any("64 images in 2 batches" in line for line in lines)
        return [name for name in found if name != "layer"]

    assert names(4) == ["deep", "layer8", "layer7", "layer6"]
    assert names(None) == [r.name for r in rows]
    assert names(10) == ["deep", *(f"layer{i}" for i in reversed(range(9)))]


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


def test_the_rows_are_written_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    Diagnosis([row("stem", shift=1 / 3), row("bn", shift=math.nan, dead=8)], images=64, batches=2).to_csv(path)
    stem, bn = csv.DictReader(path.read_text().splitlines())
    assert (stem["name"], stem["channels"], stem["shift"], stem["dead"]) == ("stem", "8", "0.333333", "0")
    assert (bn["shift"], bn["dead"]) == ("", "8")


def test_the_plot_is_written_with_dead_layers_too(tmp_path: Path) -> None:
    nan = math.nan
    dead = row("blocks.1.bn", shift=nan, shift_low=nan, shift_high=nan, scale=nan, noise=nan)
    Diagnosis([row("stem"), row("blocks.0.bn1"), dead], images=64, batches=2).plot(tmp_path / "doctor")
    with Image.open(tmp_path / "doctor.png") as picture:
        assert picture.width > 800
    assert (tmp_path / "doctor.svg").is_file()


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
def test_near_and_far_are_apart_even_if_the_shift_is_large(largest: float) -> None:
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
