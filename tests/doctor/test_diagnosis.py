"""Advice follows its rules; a diagnosis is a table, a CSV file and a figure."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from torch import nn

from stochnorm.doctor.advice import all_but
from stochnorm.doctor.diagnosis import Diagnosis
from stochnorm.doctor.plot import draw_diagnosis
from stochnorm.doctor.statistics import LayerStatistics
from stochnorm.nn import name_matches


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
    ("rows", "says", "does_not_say"),
    [
        ([row()], "fit the data", "far"),
        ([row(shift=0.4)], "at some distance", "frozen statistics are worth"),
        ([row(scale=0.9)], "at some distance", "frozen statistics are worth"),
        ([row(shift=1.5)], "far from the inherited", "start with"),
        ([row(scale=2.5)], "far from the inherited", "start with"),
        ([row(), row(), row("stem", shift=2.0)], "1 of 3 layers are nevertheless far (stem)", "noisy"),
        ([row(noise=0.4)], "noisy at 4 images per batch", "very large"),
        (
            [row(), row("deep", dead=5, awake=2)],
            "2 channels did not vary in pre-training but vary here (in deep)",
            "noisy",
        ),
        ([row(), row("deep", dead=5)], "fit the data", "did not vary"),
        ([row(noise=0.4)], "larger batches, or a smaller p, would", "p near 1"),
        ([row(noise=0.4, shift=1.5)], "larger batches would", "smaller p"),
        ([row(noise=0.4, scale=2.5)], "larger batches would", "smaller p"),
        ([row(shift=1.5)], "(--statistics target)", "smaller p"),
        (
            [row(), row(), row("stem", shift=2.0)],
            "exclude that layer: --norm-layers '^(?!stem\\b)'",
            "there is no advice",
        ),
        ([row("a"), row("b", shift=2.0), row("c", awake=1)], "--norm-layers '^(?!(b|c)\\b)'", "there is no advice"),
        ([row("a", shift=2.0), row("b", shift=2.0), row("c", awake=1)], "--norm-layers '^(?!c\\b)'", "nevertheless"),
        ([row("bn", awake=1)], "exclude these layers", "--norm-layers"),
        ([row(shift=math.nan, scale=math.nan)], "No channel varied in pre-training", "nan"),
    ],
)
def test_advice_follows_the_rules(rows: list[LayerStatistics], says: str, does_not_say: str) -> None:
    advice = " ".join(Diagnosis(rows, images=8, batches=2).advice)
    assert says in advice
    assert does_not_say not in advice
    assert ("rules of thumb" in advice) is ("there is no advice" not in advice)


def test_random_weights_get_no_advice() -> None:
    (line,) = Diagnosis([row(shift=9.0)], images=8, batches=2, inherited=False).advice
    assert "random, so there are no inherited statistics" in line


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
