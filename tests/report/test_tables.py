"""Tables word for word, names that are no markup, and what is said of few runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stochnorm.report.tables import (
    conclusions,
    format_differences_csv,
    format_latex,
    format_markdown,
    format_results_csv,
    show_results,
    write_tables,
)
from stochnorm.runs.records import Failure, Record

Build = Callable[..., list[Record]]

BOLD, UNDERLINE = "\x1b[1m", "\x1b[4m"
AWKWARD = r"50%_a&b#c$d{e}f~g^h\i"
FIVE = [50.0, 51, 52, 53, 54]
FAILURE = Failure(
    "delta", "photos", "resnet18", 15, 2, "runs/photos-delta-abc", reason="ValueError: loss is nan\nat step 3"
)


@pytest.fixture
def few(build_records: Build) -> list[Record]:
    """Three pairs at 15 %, one run at 30 %; the higher rate and the reference come last."""
    return [
        *build_records({"vanilla": [80]}, rate=30),
        *build_records({"stochnorm": [71, 73, 75], "vanilla": [70, 71, 72]}),
    ]


@pytest.fixture
def clear(build_records: Build) -> list[Record]:
    """Five pairs with a difference beyond doubt, and without one."""
    return build_records(
        {
            "vanilla": FIVE,
            "stochnorm": [v + gap for v, gap in zip(FIVE, [1.9, 2.1, 2, 1.8, 2.2], strict=True)],
            "l2sp": [v + gap for v, gap in zip(FIVE, [1, -1, 0.5, -0.5, 0.5], strict=True)],
        }
    )


def shown(
    records: Sequence[Record], failures: Sequence[Failure] = (), width: int = 100, *, colors: bool = False
) -> str:
    system: Any = "standard" if colors else None
    console = Console(width=width, file=io.StringIO(), force_terminal=colors, color_system=system, highlight=False)
    show_results(console, records, failures)  # type: ignore[arg-type]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_markdown_word_for_word(few: list[Record]) -> None:
    assert (
        format_markdown(few)
        == """\
# Results

|  | photos 15 % | photos 30 % |
| :--- | ---: | ---: |
| vanilla | 71.00 ± 1.00† (3) | 80.00 (1) |
| stochnorm | **73.00 ± 2.00** (3) | - |

Test top-1 accuracy, percent: mean ± standard deviation (n runs). Bold: the best mean; †: not significantly worse than \
it (paired t-test over common seeds, Holm, 5 %). n = 1: no spread and no test, so what is tied with the best is not \
known. -: no run, or no test score.

## Differences to vanilla, points

| data | variant | difference | 95 % interval | p (t) | p (permutation) | p (Holm) | n |
| :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: |
| photos 15 % | stochnorm | +2.00 | -0.48 to +4.48 | 0.074 | 0.250 | 0.074 | 3 |

Paired over common seeds; interval and p (t) by Student's t; Holm's correction is for the variants of one data set, \
backbone and rate; p (permutation) is at least 2 / 2^n.

## Mean ranks

| variant | mean rank |
| :--- | ---: |
| stochnorm | 1.00 |
| vanilla | 2.00 |

1 is the best; over 3 repetitions that all variants have.

- Not significant at 5 % after Holm: 1 of 1 difference to vanilla (n of 3 or more). That shows neither a difference \
nor that there is none.
"""
    )


def test_latex_word_for_word(few: list[Record]) -> None:
    assert (
        format_latex(few) == r"""\begin{table}
\centering
\caption{Test top-1 accuracy, percent: mean $\pm$ standard deviation (n runs). Bold: the best mean; underlined: """
        r"""not significantly worse than it (paired t-test over common seeds, Holm, 5 \%). n = 1: no spread and no """
        r"""test, so what is tied with the best is not known. -: no run, or no test score.}
\begin{tabular}{lrr}
\toprule
 & photos 15 \% & photos 30 \% \\
\midrule
vanilla & \underline{71.00 $\pm$ 1.00} (3) & 80.00 (1) \\
stochnorm & \textbf{73.00 $\pm$ 2.00} (3) & - \\
\bottomrule
\end{tabular}
\end{table}

\begin{table}
\centering
\caption{Differences to vanilla, points. Paired over common seeds; interval and p (t) by Student's t; Holm's """
        r"""correction is for the variants of one data set, backbone and rate; p (permutation) is at least 2 / """
        r"""2\textasciicircum{}n.}
\begin{tabular}{llrrrrrr}
\toprule
data & variant & difference & 95 \% interval & p (t) & p (permutation) & p (Holm) & n \\
\midrule
photos 15 \% & stochnorm & +2.00 & -0.48 to +4.48 & 0.074 & 0.250 & 0.074 & 3 \\
\bottomrule
\end{tabular}
\end{table}
"""
    )


def test_csv_word_for_word(few: list[Record]) -> None:
    assert (
        format_results_csv(few)
        == """\
data,backbone,rate,variant,score,n,mean,std,scale
photos,resnet18,30,vanilla,top1,1,80,,
photos,resnet18,15,stochnorm,top1,3,73,2,
photos,resnet18,15,vanilla,top1,3,71,1,
"""
    )
    assert (
        format_differences_csv(few)
        == """\
data,backbone,rate,variant,reference,n,difference,low,high,p_t,p_permutation,p_holm,scale
photos,resnet18,15,stochnorm,vanilla,3,2,-0.484138,4.48414,0.0741799,0.25,0.0741799,
"""
    )


def test_csv_leaves_empty_what_there_is_not(build_records: Build) -> None:
    records = build_records({"vanilla": [1, 2, None], "same": [2, 3, None], "none": [None], "one": [9]})
    lines = format_results_csv(records).splitlines()
    assert lines[3:] == ["photos,resnet18,15,none,top1,0,,,", "photos,resnet18,15,one,top1,1,9,,"]
    assert format_differences_csv(records).splitlines()[1:] == [
        "photos,resnet18,15,same,vanilla,2,1,,,,0.5,,",
        "photos,resnet18,15,one,vanilla,1,8,,,,,,",
    ]


def test_files_are_written(few: list[Record], tmp_path: Path) -> None:
    paths = write_tables(few, tmp_path)
    assert [path.name for path in paths] == ["results.md", "results.tex", "results.csv", "differences.csv"]
    assert paths[0].read_text(encoding="utf-8") == format_markdown(few)
    assert "+2.00" in paths[1].read_text(encoding="utf-8")
    write_tables(few, tmp_path, reference="stochnorm")
    assert "stochnorm,3,-2," in paths[3].read_text(encoding="utf-8")


def test_names_are_no_latex(build_records: Build) -> None:
    text = format_latex(build_records({AWKWARD: [1]}, data="a_b"))
    assert r"a\_b 15 \% \\" in text
    assert r"50\%\_a\&b\#c\$d\{e\}f\textasciitilde{}g\textasciicircum{}h\textbackslash{}i & 1.00 (1) \\" in text


def test_a_name_that_starts_a_row_is_no_option_of_the_line_break(build_records: Build) -> None:
    text = format_latex(build_records({"a": [1], "[b]": [1], "*": [1]}))
    assert "\\\\\n{[}b] &" in text
    assert "\\\\\n{*} &" in text


def test_names_are_no_markdown(build_records: Build) -> None:
    text = format_markdown(build_records({"a|b*c_d`[e](f)<g>\nh": [1]}))
    assert r"| a\|b\*c\_d\`\[e\](f)\<g\> h | 1.00 (1) |" in text


def test_names_are_no_csv(build_records: Build) -> None:
    records = build_records({'stochnorm, "p" = 0.3': [1], "vanilla": [2]})
    assert next(csv.DictReader(io.StringIO(format_results_csv(records))))["variant"] == 'stochnorm, "p" = 0.3'


def test_names_are_no_markup_of_the_terminal(build_records: Build) -> None:
    name = "[bold]x[/]:smile:"
    records = build_records({name: [1, 2, 4], "vanilla": [1, 1, 1]}, data="[red]d")
    text = shown(records, [Failure(name, "[i]", "[b]", 15, 2, "[link]", "got [1, 2] [/x]")])
    assert text.count(name) == 4  # results, differences, ranks, failure
    assert "[red]d 15 %" in text
    assert "[i] 15 %, [b], [bold]x[/]:smile:, repetition 2: got [1, 2] [/x] ([link])" in text


def test_the_terminal_shows_the_best_bold_and_the_tied_underlined(clear: list[Record]) -> None:
    text = shown(clear, colors=True)
    rows = {line.split()[0]: line for line in text.splitlines() if "±" in line and "deviation" not in line}
    assert f"{BOLD}54.00 ± 1.64" in rows["stochnorm"]
    assert BOLD not in rows["vanilla"] + rows["l2sp"]
    assert UNDERLINE not in text  # both are significantly worse
    assert UNDERLINE in shown([r for r in clear if r.variant != "stochnorm"], colors=True)


def test_the_terminal_shows_significant_differences_bold(clear: list[Record]) -> None:
    lines = [line for line in shown(clear, colors=True).splitlines() if " to " in line and "stochnorm -" not in line]
    significant, other = (next(line for line in lines if name in line) for name in ("stochnorm", "l2sp"))
    assert f"{BOLD}+1.80 to +2.20" in significant
    assert BOLD not in other


def test_a_narrow_terminal_breaks_no_name(clear: list[Record]) -> None:
    differences = shown(clear, width=80).partition("Differences to")[2].partition("Paired over")[0]
    assert "photos 15 %" in differences
    assert "p (Holm)" in differences
    assert "p (t)" not in differences
    assert "p (t)" in shown(clear, width=100)


def test_the_terminal_fits_a_hundred_columns(build_records: Build) -> None:
    scores = {name: [50.0, 51, 53] for name in ("vanilla", "stochnorm+l2sp+delta+bss, p = 0.3, l2sp.alpha = 0.01")}
    records = [
        record
        for data in ("CUB", "Cars", "Aircraft")
        for rate in (15, 30, 50, 100)
        for record in build_records(scores, data=data, rate=rate)
    ]
    text = shown(records)
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("…") == 0
    assert all(f"{data} {rate} %" in text for data in ("CUB", "Cars", "Aircraft") for rate in (15, 30, 50, 100))


def test_one_table_if_it_fits_and_a_data_set_is_not_divided(build_records: Build) -> None:
    records = [
        record
        for data in ("CUB", "Cars")
        for rate in (15, 30, 50)
        for record in build_records({"vanilla": [50.0, 51]}, data=data, rate=rate)
    ]
    assert shown(records, width=130).count("Test top-1 accuracy, %") == 1
    narrow = [line.split() for line in shown(records, width=80).splitlines() if "15 %" in line]
    assert [line[::3] for line in narrow] == [["CUB"] * 3, ["Cars"] * 3]


def test_the_backbone_is_named_where_there_are_several(build_records: Build) -> None:
    one = build_records({"vanilla": [50]})
    other = build_records({"vanilla": [50]}, backbone="resnet_50")
    assert "resnet" not in format_markdown(one)
    assert r"| photos 15 %, resnet18 | photos 15 %, resnet\_50 |" in format_markdown(one + other)


def test_the_metric_is_named_by_column_where_there_are_several(build_records: Build) -> None:
    scans = build_records({"vanilla": [80]}, data="scans", score="mean_auc")
    assert "Test mean AUC, percent" in format_markdown(scans)
    both = format_markdown(build_records({"vanilla": [50]}) + scans)
    assert "| photos 15 %, top-1 accuracy | scans 15 %, mean AUC |" in both
    assert "Test score, percent" in both


def test_one_run_is_a_table(build_records: Build) -> None:
    records = build_records({"vanilla": [70]})
    assert "| vanilla | 70.00 (1) |" in format_markdown(records)  # not the best of one
    assert r"vanilla & 70.00 (1) \\" in format_latex(records)
    assert conclusions(records) == ["There is one variant, so nothing is compared."]
    text = shown(records)
    assert "70.00 (1)" in text
    assert "Differences" not in text
    assert "n = 1: no spread" in text


def test_no_run_is_said(tmp_path: Path) -> None:
    write_tables([], tmp_path)
    assert (tmp_path / "results.md").read_text() == "# Results\n\n- No run is finished.\n"
    assert (tmp_path / "results.tex").read_text() == "% No run is finished.\n"
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1
    text = shown([], [FAILURE])
    assert "1 run failed" in text
    assert "No run is finished." in text


def test_failures_have_a_line_and_a_reason_each(few: list[Record]) -> None:
    lines = shown(few, [FAILURE, replace(FAILURE, repeat=3, reason="killed")], width=120).splitlines()
    at = lines.index("2 runs failed")
    assert lines[at + 1 : at + 3] == [
        "photos 15 %, resnet18, delta, repetition 2: ValueError: loss is nan at step 3 (runs/photos-delta-abc)",
        "photos 15 %, resnet18, delta, repetition 3: killed (runs/photos-delta-abc)",
    ]


def test_a_significant_difference_is_said_in_numbers(clear: list[Record]) -> None:
    """2 -+ 2.776 * sqrt(0.025 / 5)."""
    assert conclusions(clear) == [
        "photos 15 %: stochnorm - vanilla: +2.00 points (95 %: 1.80 to 2.20; p <0.001 after Holm, n = 5).",
        "Not significant at 5 % after Holm: 1 of 2 differences to vanilla (n of 3 or more). That shows neither a "
        "difference nor that there is none.",
    ]


@pytest.mark.parametrize("n", [1, 2])
def test_nothing_is_concluded_from_fewer_than_three_pairs(n: int, clear: list[Record]) -> None:
    records = [record for record in clear if record.data_seed < n]
    assert conclusions(records) == [
        f"Nothing can be concluded from n = {n}: 2 differences to vanilla. Repeat with 3 seeds at least, better 5 or "
        "more."
    ]


def test_two_pairs_are_not_shown_as_significant_though_t_says_so(build_records: Build) -> None:
    records = build_records({"vanilla": [50, 51], "stochnorm": [60, 61.001]})
    row = next(line for line in shown(records, colors=True).splitlines() if "+10.00" in line)
    assert "<0.001" in row
    assert BOLD not in row


def test_what_cannot_be_compared_is_said(build_records: Build) -> None:
    records = build_records({"vanilla": [50, ...], "bss": [..., 50]})
    assert conclusions(records) == [
        "photos 15 %: bss and vanilla have no repetition (data_seed and seed) in common, so they are not compared."
    ]
    assert "no run of l2sp" in conclusions(records, reference="l2sp")[0]
    assert conclusions(build_records({"vanilla": [None], "bss": [None]})) == [
        "No run has a test score, so nothing is compared."
    ]


def test_means_over_other_repetitions_are_said_to_be(build_records: Build) -> None:
    note = "Where n differs, means are over other repetitions"
    assert note in format_markdown(build_records({"vanilla": [50, 51], "bss": [50, 51, 52]}))
    assert note not in format_markdown(build_records({"vanilla": [50, 51], "bss": [50, 51]}))


def test_small_scale_is_no_result(clear: list[Record]) -> None:
    small = [replace(record, scale="small") for record in clear]
    title = "(small scale: no result)"
    assert format_markdown(small).count(title) == 3  # results, differences, ranks
    assert format_latex(small).count(title) == 2
    assert shown(small).count(title) == 3
    assert conclusions(small) == ["These runs are small scale: they show that the comparison works, and no result."]
    assert all(line.endswith(",small") for line in format_results_csv(small).splitlines()[1:])
    assert all(line.endswith(",small") for line in format_differences_csv(small).splitlines()[1:])
    assert "(partly small scale: no result)" in format_markdown([*clear[:-1], small[-1]])
    assert "scale: no result" not in format_markdown(clear)
