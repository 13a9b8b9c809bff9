"""The runs of a grid: which, with which seeds, under which names."""

from __future__ import annotations

from pathlib import Path

import pytest

from stochnorm import FinetuneConfig, Grid, Variant
from stochnorm.comparison.grid import override, parse_variant

VANILLA, STOCHNORM = Variant("vanilla", {"method": "vanilla"}), Variant("stochnorm", {"method": "stochnorm"})


def grid(base: FinetuneConfig | None = None, **options: object) -> Grid:
    return Grid(base or FinetuneConfig("photos"), (VANILLA, STOCHNORM), (15.0, 30.0), **options)  # type: ignore[arg-type]


def test_every_variant_meets_every_rate_and_repetition_once() -> None:
    runs = list(grid(repeats=3, data=("a", "b")).runs())
    assert len(runs) == len({(r.variant, r.repeat, r.config.data, r.config.rate) for r in runs}) == 2 * 2 * 3 * 2
    assert [r.repeat for r in runs] == sorted(r.repeat for r in runs)


def test_the_variants_of_a_cell_share_images_and_order_and_nothing_else_does() -> None:
    seeds: dict[tuple[int, float], set[tuple[int, int]]] = {}
    for run in grid(repeats=3).runs():
        seeds.setdefault((run.repeat, run.config.rate), set()).add((run.config.data_seed, run.config.seed))
    assert all(len(pairs) == 1 for pairs in seeds.values())
    training = [pair[1] for pairs in seeds.values() for pair in pairs]
    assert len(set(training)) == len(training) == 6


def test_images_differ_between_repetitions_and_nest_between_rates() -> None:
    by_repeat: dict[int, set[int]] = {}
    for run in grid(repeats=3).runs():
        by_repeat.setdefault(run.repeat, set()).add(run.config.data_seed)
    assert all(len(found) == 1 for found in by_repeat.values())
    assert len({seed for found in by_repeat.values() for seed in found}) == 3
    assert len({run.config.data_seed for run in grid(repeats=3, same_images=True).runs()}) == 1


def test_another_seed_changes_both_seeds_of_every_run() -> None:
    for one, other in zip(grid(seed=0).runs(), grid(seed=1).runs(), strict=True):
        assert one.config.data_seed != other.config.data_seed
        assert one.config.seed != other.config.seed


def test_a_directory_is_named_by_what_the_result_depends_on() -> None:
    out = Path("out")
    first, again = grid(), grid(FinetuneConfig("photos", workers=3, log="none"))
    names = [first.directory(run, out) for run in first.runs()]
    assert names == [again.directory(run, out) for run in again.runs()]
    assert len(set(names)) == len(names)
    longer = grid(FinetuneConfig("photos", steps=301))
    assert not set(names) & {longer.directory(run, out) for run in longer.runs()}


def test_settings_that_a_method_does_not_look_at_name_no_other_run() -> None:
    plain, other = (
        {run.variant: grid().directory(run, Path()) for run in Grid(base, (VANILLA, STOCHNORM)).runs()}
        for base in (FinetuneConfig("photos"), FinetuneConfig("photos", p=0.3, norm_layers="layer4"))
    )
    assert plain["vanilla"] == other["vanilla"]
    assert plain["stochnorm"] != other["stochnorm"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
        ({"variants": ()}, "a grid needs at least one method, got none"),
        ({"variants": (VANILLA, VANILLA)}, "vanilla: duplicate variant"),
        (
            {"variants": (Variant("x", {"method": "vanilla", "learning_rate": 1}),)},
            "unknown setting 'learning_rate'",
        ),
        ({"variants": (Variant("x", {"method": "l2sp", "l2sp.gamma": 1}),)}, "unknown setting 'l2sp.gamma'"),
        ({"variants": (Variant("x", {"method": "l2sp", "p": 0.2}),)}, "method l2sp does not use p"),
        ({"variants": (Variant("x", {"method": "stochnorm", "p": 2}),)}, r"p must be in \[0, 1\], got 2"),
    ],
)
def test_a_grid_that_cannot_be_is_an_error(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(**({"base": FinetuneConfig("photos"), "variants": (VANILLA,)} | options))  # type: ignore[arg-type]


def test_a_variant_is_written_as_method_and_settings() -> None:
    variant = parse_variant("stochnorm+l2sp:p=0.3:l2sp.alpha=0.01:statistics=zero_one")
    assert variant.label == "stochnorm+l2sp, p = 0.3, l2sp.alpha = 0.01, statistics = zero_one"
    config = override(FinetuneConfig("photos"), variant.settings)
    assert (config.method, config.p, config.l2sp.alpha, config.statistics) == ("stochnorm+l2sp", 0.3, 0.01, "zero_one")
    assert parse_variant("bss+stochnorm") == parse_variant("stochnorm+bss")
    with pytest.raises(ValueError, match="'p' is not a setting; write METHOD:SETTING=VALUE"):
        parse_variant("stochnorm:p")
