"""Tables word for word, names that are not markup, and notes on few runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stochnorm.report.tables import (
    conclusions,
    format_differences_csv,
    format_latex,
    format_markdown,
    format_results_csv,
    write_tables,
)
from stochnorm.runs.records import Failure, Record

Build = Callable[..., list[Record]]

AWKWARD = r"50%_a&b#c$d{e}f~g^h\i"
FAILURE = Failure(
    "delta", "photos", "resnet18", 15, 2, "runs/photos-delta-abc", reason="ValueError: loss is nan\nat step 3"
)


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

- Not significant at 5 % after Holm: 1 of 1 difference to vanilla (n of 3 or more). This proves neither a difference \
nor equality.
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


def test_one_run_is_a_table(build_records: Build, shown: Callable[..., str]) -> None:
    records = build_records({"vanilla": [70]})
    assert "| vanilla | 70.00 (1) |" in format_markdown(records)  # not the best of one
    assert r"vanilla & 70.00 (1) \\" in format_latex(records)
    assert conclusions(records) == ["There is one variant, so nothing is compared."]
    text = shown(records)
    assert "70.00 (1)" in text
    assert "Differences" not in text
    assert "n = 1: no spread" in text


def test_no_run_is_said(tmp_path: Path, shown: Callable[..., str]) -> None:
    write_tables([], tmp_path)
    assert (tmp_path / "results.md").read_text() == "# Results\n\n- No run is finished.\n"
    assert (tmp_path / "results.tex").read_text() == "% No run is finished.\n"
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1
    text = shown([], [FAILURE])
    assert "1 run failed" in text
    assert "No run is finished." in text


def test_means_over_other_repetitions_are_said_to_be(build_records: Build) -> None:
    note = "Where n differs, means are over different repetitions"
    assert note in format_markdown(build_records({"vanilla": [50, 51], "bss": [50, 51, 52]}))
    assert note not in format_markdown(build_records({"vanilla": [50, 51], "bss": [50, 51]}))


def test_small_scale_is_no_result(clear: list[Record], shown: Callable[..., str]) -> None:
    small = [replace(record, scale="small") for record in clear]
    title = "(small scale: no result)"
    assert format_markdown(small).count(title) == 3  # results, differences, ranks
    assert format_latex(small).count(title) == 2
    assert shown(small).count(title) == 3
    assert conclusions(small) == ["These runs are small scale: they show that the comparison works and are no result."]
    assert all(line.endswith(",small") for line in format_results_csv(small).splitlines()[1:])
    assert all(line.endswith(",small") for line in format_differences_csv(small).splitlines()[1:])
    assert "(partly small scale: no result)" in format_markdown([*clear[:-1], small[-1]])
    assert "scale: no result" not in format_markdown(clear)
