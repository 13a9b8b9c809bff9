"""The page: what is said of runs, put into the template."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stochnorm.files import check_target, write_text
from stochnorm.report.page.charts import Figure, Style, accuracy_figure, curve_figure, gain_figure, styles
from stochnorm.report.page.details import Details, Shown, choose, details_of, read_history
from stochnorm.report.page.overview import Overview, environments, overview
from stochnorm.report.page.thumbnails import Album
from stochnorm.report.statistics import FEW
from stochnorm.report.tables import write_tables
from stochnorm.report.tables.content import scales
from stochnorm.runs.directory import Run
from stochnorm.runs.records import Cell, Failure, Record, read_records
from stochnorm.runs.scores import SCORES
from stochnorm.text import count, decimals, duration, interval, signed, some, spaced_p, span

__all__ = ["format_report", "report", "write_report"]

_GLOSSARY = {
    "95 % interval": "Where the true value lies, as far as this many test images or repeats can tell. An interval of a "
    "gain that holds 0 shows no gain.",
    "± (standard deviation)": "How much the repeats differ among themselves.",
    "gain": "Score less that of the reference, on the same images in the same order, so that luck with the images "
    "cancels.",
    "best and tied": "Best is the highest mean. Tied is what the repeats cannot tell from it: not shown to be worse, "
    "which is not shown to be equal.",
    "p (Holm)": "How often chance alone would give such a gain, corrected for comparing several methods at once. Below "
    "0.05 it is called significant.",
    "mean rank": "Each repeat of a case ranks the methods from 1, the best; this is the mean.",
    "case": "One data set, backbone and sampling rate.",
    "sampling rate": "The share of the training images that was used.",
    "calibration error (ECE)": "How far the probabilities are from how often they are right, in points. Small is good.",
    "AUC": "How often an image with the finding scores above one without it. 50 % is chance.",
    "validation score": "On images that were not trained on. It chose the model, so it is optimistic; the test "
    "score is not.",
}
_OF_COMPARISONS = {"± (standard deviation)", "gain", "best and tied", "p (Holm)", "mean rank", "case"}
_NO_TEST = (
    "No run has a test split, so the scores here are those of the validation images, which also chose the models: they "
    "are optimistic."
)


class KeyFigure(NamedTuple):
    """One number of the header."""

    name: str
    value: str
    note: str
    small: bool = False
    """A name rather than a number."""


class Case(NamedTuple):
    """One choice of the runs in detail."""

    name: str
    variants: list[str]
    figure: str
    """The methods' curves side by side; empty without any."""


def write_report(
    records: Sequence[Record],
    path: Path,
    *,
    root: Path,
    title: str = "",
    failures: Sequence[Failure] = (),
    reference: str = "vanilla",
) -> None:
    """Write one HTML page on runs, that loads nothing from elsewhere.

    One run: its scores, curves, classes, confusion, mistakes, calibration. Several: what is best and what is tied with
    it, scores and gains by sampling rate, cost, and details of at most 100 runs, chosen by a rule that the page names.

    Args:
        records: Finished runs.
        path: The file.
        root: What the runs' directories are relative to. Where a directory is gone, the page leaves out what it held.
        title: Of the page; empty: made of what was run.
        failures: Runs that came to nothing, which the page lists.
        reference: The variant that others are compared with.

    Raises:
        ValueError: There is neither a run nor a failure; or as :func:`stochnorm.report.statistics.summarize`.
        OSError: The file cannot be written.
    """
    check_target(path)
    write_text(path, format_report(records, root=root, title=title, failures=failures, reference=reference))


def report(
    paths: Iterable[str | Path], out: str | Path = "", *, title: str = "", reference: str = "vanilla"
) -> list[Path]:
    """Write the page on runs, and their tables (Markdown, LaTeX, CSV) beside it.

    Args:
        paths: Directories of runs or of comparisons, and files of records.
        out: The page; empty: ``report.html`` in the first of the directories, or beside the first file.
        title: Of the page; empty: made of what was run.
        reference: The variant that others are compared with.

    Returns:
        The files that were written, the page first.

    Raises:
        FileNotFoundError: There is no finished run.
        ValueError: A file is damaged.

    Example:
        >>> report(["runs/photos"])  # doctest: +SKIP
        [PosixPath('runs/photos/report.html'), PosixPath('runs/photos/results.md'), ...]
    """
    places = [Path(path) for path in paths]
    records: dict[str, Record] = {}
    for path in places:
        for record in read_records([path]):
            # A file's runs are relative to it.
            run = path.parent / record.run if path.is_file() else Path(record.run)
            records.setdefault(str(run.resolve()), replace(record, run=str(run)))
    if not out:
        out = (places[0] if places[0].is_dir() else places[0].parent) / "report.html"
    page = Path(out)
    found = list(records.values())
    check_target(page)
    notes = [note for path in places for note in _failed(path)]
    write_text(page, format_report(found, root=Path(), title=title, reference=reference, notes=notes))
    return [page, *write_tables(found, page.parent, reference)]


def format_report(
    records: Sequence[Record],
    *,
    root: Path,
    title: str = "",
    failures: Sequence[Failure] = (),
    reference: str = "vanilla",
    notes: Sequence[str] = (),
) -> str:
    """The page's text; see :func:`write_report`. The notes stand in its header."""
    if not records and not failures:
        raise ValueError("a report needs at least one finished run, got none; give directories of runs")
    notes = list(notes)
    without = [record for record in records if record.test is None]
    if records and len(without) == len(records) > 1:
        notes.append(_NO_TEST)
    elif without and len(records) > 1:
        notes.append(f"{len(without)} of {len(records)} runs have no test split and count for nothing in the tables.")
    compared = [replace(r, test=r.validation) for r in records] if _NO_TEST in notes else records
    view = overview(compared, reference) if len(records) > 1 else None
    album = Album()
    shown = choose(records, view.best if view else {}, reference)
    details = _details(shown, root, album, reference, bool(view))
    figures = _group_figures(view) if view else {}
    cases, case_of, case_figures = _cases(details, view)
    figures |= case_figures
    figures |= {f"{d.id}-{name}": figure for d in details for name, figure in d.figures.items()}
    context = {
        "all": view,
        "record": records[0] if len(records) == 1 else None,
        "details": details,
        "rule": shown.rule or "Each run is shown.",
        "cases": cases,
        "case_of": case_of,
        "title": title or _title(records, failures),
        "eyebrow": _eyebrow(records, view),
        "lead": _lead(records, view, reference),
        "notes": notes,
        "key_figures": _comparison_figures(records, view, len(failures)) if view else _run_figures(records, details),
        "scale": scales(records),
        "reference": reference,
        "failures": failures,
        "environments": environments(records),
        "glossary": _glossary(records, view),
        "sections": _sections(view, details, failures),
        "figures": figures,
        "figure_names": set(figures),
        "heights": {name: figure["layout"]["height"] for name, figure in figures.items()},
        "thumbnails": album.images,
        "style": styles(view.variants, reference)
        if view
        else {r.variant: Style("var(--s1)", "circle") for r in records},
    }
    return _render(context | (_table_facts(view) if view else {}))


def _failed(path: Path) -> list[str]:
    """Of the runs of a comparison's directory that came to nothing, in a sentence."""
    reasons = {
        file.parent.name: json.loads(file.read_text(encoding="utf-8")).get("reason", "no reason given")
        for file in sorted(path.rglob("failure.json"))
        if not Run(file.parent).result.is_file()
    }
    listed = some([f"{name} ({reason})" for name, reason in reasons.items()])
    return [f"{count(len(reasons), 'run')} in {path} failed, not counted here: {listed}."] if reasons else []


def _render(context: dict[str, Any]) -> str:
    # What comes from files is escaped: text by autoescape, data by tojson. Only our own files are not.
    environment = Environment(
        loader=PackageLoader("stochnorm.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"num": decimals, "signed": signed, "p": spaced_p, "duration": duration, "count": count}
    environment.filters |= {"interval": interval, "soft": _soft}
    scripts = [_plotly(), _own("page.js")]
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )
    return environment.get_template("page.html").render(
        {
            "css": Markup(_own("page.css")),  # noqa: S704 our own
            "scripts": [Markup(script) for script in scripts],  # noqa: S704 our own and Plotly's
            "policy": policy,
            "version": version("stochnorm"),
            "date": datetime.now().astimezone().strftime("%-d %B %Y"),
            "SCORES": SCORES,
            **context,
        }
    )


def _own(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # slow to import

    return str(get_plotlyjs())


def _details(shown: Shown, root: Path, album: Album, reference: str, several: bool) -> list[Details]:
    histories = {
        record.cell: read_history(Run(root / record.run))
        for record in shown.records
        if several and record.variant == reference
    }
    return [
        details_of(
            record,
            f"run-{number}",
            root,
            album,
            beside=histories.get(record.cell) if record.variant != reference else None,
        )
        for number, record in enumerate(shown.records)
    ]


def _group_figures(view: Overview) -> dict[str, Figure]:
    style = styles(view.variants, view.reference)
    figures = {}
    for number, group in enumerate(view.groups):
        rows = [row for entries in group.rows.values() for row in entries if row]
        figures[f"accuracy-{number}"] = accuracy_figure([row.summary for row in rows], style)
        gains = [row.gain for row in rows if row.gain]
        if gains:
            figures[f"gain-{number}"] = gain_figure(gains, style)
    return figures


def _cases(details: Sequence[Details], view: Overview | None) -> tuple[list[Case], dict[str, int], dict[str, Figure]]:
    """The cases that have runs in detail, which one each run belongs to, and their methods' curves side by side."""
    cells = list(dict.fromkeys(d.record.cell for d in details))
    case_of = {d.id: cells.index(d.record.cell) for d in details}
    if view is None:
        return [], case_of, {}
    style = styles(view.variants, view.reference)
    backbones = len({cell.backbone for cell in cells}) > 1
    cases, figures = [], {}
    for number, cell in enumerate(cells):
        inside = [d for d in details if d.record.cell == cell]
        curves = {
            d.record.variant: (d.history_steps, d.history_scores, style[d.record.variant])
            for d in inside
            if d.history_steps
        }
        figure = f"case-{number}" if len(curves) > 1 else ""
        if figure:
            figures[figure] = curve_figure(curves, percent=True)
        cases.append(Case(_cell_name(cell, backbones), list(curves), figure))
    return cases, case_of, figures


def _cell_name(cell: Cell, backbone: bool) -> str:
    return f"{cell.data} at {cell.rate:g} %" + (f", {cell.backbone}" if backbone else "")


def _table_facts(view: Overview) -> dict[str, Any]:
    rates = sorted({cell.rate for cell in view.cells})
    return {
        "rates": rates,
        "several_rates": any(len(group.rates) > 1 for group in view.groups),
        "several_backbones": len({cell.backbone for cell in view.cells}) > 1,
        "has_memory": any(cost.memory is not None for cost in view.costs),
        "longest": max((cost.seconds or 0.0 for cost in view.costs), default=0.0) or 1.0,
        "tables_note": "Scores in percent, gains in points. The same numbers stand in results.csv and differences.csv "
        "beside this page.",
    }


def _title(records: Sequence[Record], failures: Sequence[Failure]) -> str:
    if not records:
        return f"{count(len(failures), 'run')} failed"
    data = list(dict.fromkeys(record.data for record in records))
    names = some(data, 3)
    variants = list(dict.fromkeys(record.variant for record in records))
    if len(records) == 1:
        return f"{variants[0]} on {names}"
    return f"{count(len(variants), 'method')} on {names}"


def _eyebrow(records: Sequence[Record], view: Overview | None) -> str:
    backbones = list(dict.fromkeys(record.backbone for record in records))
    what = "Comparison of fine-tuning methods" if view else "Fine-tuning run"
    return what + (f" · {', '.join(backbones[:3])}" if backbones else "")


def _lead(records: Sequence[Record], view: Overview | None, reference: str) -> str:
    """What it comes to, in a sentence or two."""
    if not records:
        return "No run is finished, so there is nothing to compare; the reasons stand below."
    if any(record.scale for record in records):
        return "These runs check that everything works, at a small scale. Their numbers are no result."
    return _lead_of_comparison(view, reference) if view else _lead_of_run(records[0])


def _lead_of_run(record: Record) -> str:
    score, images = SCORES[record.score], record.images
    metrics = record.test or record.validation
    value, bounds = metrics[record.score], metrics.get(f"{record.score}_interval")
    trained = f"Trained on {images.get('train', 0):,} images of {count(record.classes, score.label)}"
    if value is None:
        return f"{trained}; its {score.title} is undefined on this split."
    spread = f" (95 % interval {interval(bounds)})" if bounds else ""
    if record.test is None:
        return f"{trained}, it reaches {value:.1f} % {score.title} on the validation images; there was no test split."
    return f"{trained}, it reaches {value:.1f} % {score.title} on {metrics['images']:,} test images{spread}."


def _lead_of_comparison(view: Overview, reference: str) -> str:
    if len(view.variants) < 2:
        return "There is one method, so nothing is compared."
    if not view.blocks:
        return "No repeat has a score of every method, so they cannot be ranked together; compare them case by case."
    best, cells = view.standings[0], len(view.cells)
    text = f"{best.variant} ranks best of {len(view.variants)} methods (mean rank {best.rank:.1f})"
    if not view.reference:
        return f"{text}. There is no run of {reference}, so gains over it are left out."
    few = max(row.summary.n for row in view.rows) < FEW
    if best.variant == view.reference:
        better = sum(s.better for s in view.standings)
        return f"{text}: nothing ranks above the reference, and {better or 'no'} gains over it are significant."
    if best.gain is not None and best.gain < 0:  # ranks go by repeats, gains by means
        return f"{text}, though its mean is {-best.gain:.1f} points below {reference}'s: it is not shown to be better."
    text += f"; it gains {signed(best.gain, 1)} points over {view.reference} on average"
    if few:
        return f"{text}. With fewer than {FEW} repeats that may be chance: nothing can be concluded."
    if not best.better:
        return f"{text}, but in none of {count(cells, 'case')} significantly."
    return f"{text}, significantly in {best.better} of {count(cells, 'case')}."


def _comparison_figures(records: Sequence[Record], view: Overview, failed: int) -> list[KeyFigure]:
    best = view.standings[0]
    repeats = {row.summary.n for row in view.rows if row.summary.n}
    figures = []
    scaled = any(record.scale for record in records)  # then nothing is said of what is better
    if len(view.variants) > 1 and not scaled:
        rank = f"mean rank {best.rank:.2f} of {len(view.variants)}" if best.rank else f"of {len(view.variants)} methods"
        figures.append(KeyFigure("Ranks best", best.variant, rank, small=True))
    if view.reference and best.gain is not None and not scaled:
        word = f"points, {best.variant}, mean over {count(len(view.cells), 'case')}"
        figures.append(KeyFigure(f"Gain over {view.reference}", signed(best.gain, 1), word))
    note = f"{count(len(view.variants), 'method')}, {count(len(view.cells), 'case')}, {span(repeats or {0})} repeats"
    if failed:
        note += f"; {failed} failed"
    figures.append(KeyFigure("Finished runs", f"{len(records):,}", note))
    seconds = sum(record.cost.get("seconds") or 0.0 for record in records)
    figures.append(KeyFigure("Training time", duration(seconds), "of all runs together"))
    return figures


def _run_figures(records: Sequence[Record], details: Sequence[Details]) -> list[KeyFigure]:
    if not records:
        return []
    record = records[0]
    title = SCORES[record.score].title
    figures = []
    for name, metrics in (("Test", record.test), ("Validation", record.validation)):
        if metrics and metrics[record.score] is not None:
            bounds = metrics.get(f"{record.score}_interval")
            spread = f"95 %: {interval(bounds)}" if bounds else f"{metrics['images']:,} images"
            named = f"{name} {title}" if name == "Test" else name
            figures.append(KeyFigure(named, f"{metrics[record.score]:.1f} %", spread))
    if record.test and record.test.get("ece") is not None:
        figures.append(KeyFigure("Calibration error", f"{record.test['ece']:.1f}", "points; 0 is ideal"))
    counts = " / ".join(f"{record.images.get(split, 0):,}" for split in ("train", "val", "test"))
    figures.append(KeyFigure("Images", f"{sum(record.images.values()):,}", f"{counts} train / val / test"))
    speed = record.cost.get("images_per_second")
    memory = record.cost.get("peak_memory_gigabytes")
    note = (f"{speed:.0f} images/s" if speed else "") + (f", {memory:.1f} GB at most" if memory else "")
    figures.append(KeyFigure("Training", duration(record.cost.get("seconds")), note))
    return figures


def _glossary(records: Sequence[Record], view: Overview | None) -> list[tuple[str, str]]:
    """The words that the page uses."""
    idle = set() if view else _OF_COMPARISONS
    idle |= set() if any(SCORES[record.score].multi_label for record in records) else {"AUC"}
    return [(word, meaning) for word, meaning in _GLOSSARY.items() if word not in idle]


def _sections(view: Overview | None, details: Sequence[Details], failures: Sequence[Failure]) -> list[tuple[str, str]]:
    if view:
        found = [("top", "Overview"), ("results", "Results"), ("charts", "Charts"), ("table", "All results")]
        found += [("runs", "Runs in detail")] if details else []
    else:
        found = [("top", "Overview"), *([("run", "Scores")] if details else [])]
        have = details[0].figures if details else {}
        found += [("curves", "Curves")] if "loss" in have else []
        found += [("classes", "Findings" if details[0].multi_label else "Classes")] if "classes" in have else []
        found += [("mistakes", "Mistakes")] if details and details[0].mistakes else []
        found += [("calibration", "Calibration")] if "calibration" in have else []
    found += [("failures", "Failures")] if failures else []
    found += [("cost", "Cost")] if view else []
    found += [("settings", "Settings")] if details or view else []
    return [*found, ("reading", "How to read")]


def _soft(name: str) -> Markup:
    """A name that may be broken after its punctuation."""
    return Markup("").join(Markup("{}<wbr>").format(part) for part in re.findall(r"[^_./+-]+[_./+-]*|[_./+-]+", name))
