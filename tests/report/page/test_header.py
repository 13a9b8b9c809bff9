"""The headline: what it claims, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from stochnorm.report.page.content import gather
from stochnorm.report.page.header import Header, header
from stochnorm.runs.records import Record

Build = Callable[..., list[Record]]
FIVE = [50.0, 51, 52, 53, 54]


def top(records: Sequence[Record], reference: str = "vanilla") -> Header:
    return header(gather(records, root=Path("nowhere"), failures=[], reference=reference, notes=[]), "")


def shifted(*gaps: float) -> list[float]:
    return [value + gap for value, gap in zip(FIVE, gaps, strict=False)]


@pytest.mark.parametrize(
    ("scores", "lead"),
    [
        (
            {"vanilla": FIVE, "bss": shifted(1.9, 2.1, 2, 1.8, 2.2)},
            "bss ranks best (mean rank 1.00 of 2 methods) and gains 2.0 points over vanilla on average, significantly "
            "in 1 of 1 case.",
        ),
        (
            {"vanilla": FIVE[:4], "bss": shifted(1, -1, 1, -1)},
            "vanilla and bss share the best mean rank (1.50 of 2 methods).",
        ),
        (
            {"vanilla": FIVE, "bss": shifted(9, 1, -1, 2, 1)},
            "bss ranks best (mean rank 1.20 of 2 methods) and gains 2.4 points over vanilla on average, significantly "
            "in no case.",
        ),
        (
            {"vanilla": FIVE, "bss": shifted(1, 1, 1, -20, -20)},
            "bss ranks best (mean rank 1.40 of 2 methods), but its mean is below that of vanilla: it loses 7.4 points "
            "on average, so it is not shown to be better.",
        ),
        (
            {"vanilla": FIVE, "bss": shifted(-1, -2, -1, 1, -3)},
            "No method beat vanilla, which ranks best (mean rank 1.20 of 2 methods): no gain over it is significant.",
        ),
        (
            {"vanilla": FIVE[:2], "bss": shifted(1, 2)},
            "bss ranks best (mean rank 1.00 of 2 methods) and gains 1.5 points over vanilla on average. With fewer "
            "than 3 repeats that may be chance: nothing can be concluded.",
        ),
        (
            {"vanilla": FIVE[:2], "bss": shifted(-1, -2)},
            "vanilla ranks best (mean rank 1.00 of 2 methods). With fewer than 3 repeats that may be chance: nothing "
            "can be concluded.",
        ),
        ({"vanilla": FIVE}, "There is one method, so nothing is compared."),
    ],
)
def test_the_lead_says_what_the_repeats_show(scores: dict[str, list[float]], lead: str, build_records: Build) -> None:
    assert top(build_records(scores)).lead == lead


def test_the_first_by_rank_may_still_have_rivals_with_significant_gains(build_records: Build) -> None:
    """The reference ranks first over two rates, and loses clearly at a third."""
    records = [
        record
        for rate, gap in ((15.0, -1.0), (30.0, -1.0), (50.0, 2.0))
        for record in build_records({"vanilla": FIVE, "bss": shifted(*(gap + k / 10 for k in range(5)))}, rate=rate)
    ]
    assert top(records).lead == (
        "No method ranks above vanilla (mean rank 1.33 of 2 methods), but 1 gain over it is significant."
    )


def test_without_a_common_repeat_no_method_is_said_to_rank_best(build_records: Build) -> None:
    found = top(build_records({"vanilla": [50.0, ...], "bss": [..., 60.0]}))
    assert "so there is no common ranking" in found.lead
    assert "Ranks best" not in [figure.name for figure in found.key_figures]


def test_the_tiles_have_the_rank_and_the_loss_of_the_lead(build_records: Build) -> None:
    rank, difference, *_ = top(build_records({"vanilla": FIVE, "bss": shifted(1, 1, 1, -20, -20)})).key_figures
    assert rank == ("Ranks best", "bss", "mean rank 1.40 of 2, but its mean is below that of vanilla", True)
    assert difference[:2] == ("Difference to vanilla", "\N{MINUS SIGN}7.4")
    rank, gain, *_ = top(build_records({"vanilla": FIVE, "bss": shifted(9, 1, -1, 2, 1)})).key_figures
    assert rank.note == "mean rank 1.20 of 2"
    assert gain[:2] == ("Gain over vanilla", "+2.4")


def test_without_the_reference_there_is_no_gain(build_records: Build) -> None:
    found = top(build_records({"a": FIVE, "b": shifted(1, 1, 1, 1, 1)}), reference="delta")
    assert found.lead.endswith("There is no run of delta, so gains over it are left out.")
    assert not any("Gain" in figure.name for figure in found.key_figures)
