"""The header of the page: title, one sentence with the outcome, key figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stochnorm.report.page.content import Content
from stochnorm.report.page.details import Details
from stochnorm.report.page.overview import Overview
from stochnorm.report.statistics import FEW
from stochnorm.runs.records import Record
from stochnorm.runs.scores import SCORES
from stochnorm.text import count, decimals, duration, interval, signed, some, span

__all__ = ["Header", "KeyFigure", "header"]


class KeyFigure(NamedTuple):
    """One number of the header."""

    name: str
    value: str
    note: str
    small: bool = False
    """True for a name rather than a number."""


class Header(NamedTuple):
    """The top of the page."""

    title: str
    eyebrow: str
    """Subject of the page, above the title."""
    lead: str
    """The outcome, in a sentence or two."""
    notes: list[str]
    key_figures: list[KeyFigure]


def header(content: Content, title: str) -> Header:
    """Return the header of a page.

    Args:
        content: The runs.
        title: Title of the page; empty: made from the methods and data sets.
    """
    view = content.view
    figures = (
        _comparison_figures(content.records, view, len(content.failures)) if view else _run_figures(content.records)
    )
    return Header(title or _title(content), _eyebrow(content), _lead(content), content.notes, figures)


def _title(content: Content) -> str:
    records = content.records
    if not records:
        return f"{count(len(content.failures), 'run')} failed"
    names = some(list(dict.fromkeys(record.data for record in records)), 3)
    variants = list(dict.fromkeys(record.variant for record in records))
    return f"{variants[0] if len(records) == 1 else count(len(variants), 'method')} on {names}"


def _eyebrow(content: Content) -> str:
    backbones = list(dict.fromkeys(record.backbone for record in content.records))
    what = "Comparison of fine-tuning methods" if content.view else "Fine-tuning run"
    return what + (f" · {', '.join(backbones[:3])}" if backbones else "")


def _lead(content: Content) -> str:
    if not content.records:
        return "No run is finished, so there is nothing to compare; the reasons are below."
    if any(record.scale for record in content.records):
        return "These runs check that everything works, at a small scale. Their numbers are no result."
    if content.view:
        return _lead_of_comparison(content.view, content.reference)
    return _lead_of_run(content.details[0])


def _lead_of_run(details: Details) -> str:
    lead, warning = _what_it_reaches(details), details.record.probe.get("warning")
    return f"{lead} Warning: {warning}." if warning else lead


def _trained_on(details: Details) -> int:
    """Return the number of images that the model of the lead's score was trained on."""
    record, probe = details.record, details.record.probe
    if record.test is not None:  # else the score is that of the model that had not seen the validation images
        if again := details.auto.get("refit"):
            return int(again["images"])
        if probe.get("fitted_on") == "train and validation":
            return int(probe["images"])
    return record.images.get("train", 0)


def _what_it_reaches(details: Details) -> str:
    record = details.record
    score = SCORES[record.score]
    metrics = record.test or record.validation
    value, bounds = metrics[record.score], metrics.get(f"{record.score}_interval")
    trained = f"Trained on {_trained_on(details):,} images of {count(record.classes, score.label)}"
    if value is None:
        return f"{trained}; its {score.title} is undefined on this split."
    spread = f" (95 % interval {interval(bounds)})" if bounds else ""
    if folds := record.settings.get("folds"):
        return (
            f"A model trained like this one reaches {value:.1f} % {score.title}{spread}, estimated by {folds}-fold "
            f"cross-validation: each of {metrics['images']:,} images of {count(record.classes, score.label)} is "
            "predicted by a model that has not seen it."
        )
    if record.test is None:
        return f"{trained}, it reaches {value:.1f} % {score.title} on the validation images; there was no test split."
    return f"{trained}, it reaches {value:.1f} % {score.title} on {metrics['images']:,} test images{spread}."


def _lead_of_comparison(view: Overview, reference: str) -> str:
    if len(view.variants) < 2:
        return "There is one method, so nothing is compared."
    if not view.blocks:
        return "No repeat has a score of every method, so there is no common ranking; compare the methods case by case."
    best, cells = view.standings[0], count(len(view.cells), "case")
    place = f"mean rank {decimals(best.rank, 2)} of {len(view.variants)} methods"
    chance = f"With fewer than {FEW} repeats that may be chance: nothing can be concluded."
    few = max(row.summary.n for row in view.rows) < FEW
    if len(leaders := _leaders(view)) > 1:
        tie = f"{' and '.join(leaders)} share the best mean rank"
        text = f"{tie} ({decimals(best.rank, 2)} of {len(view.variants)} methods)."
        return f"{text} {chance}" if few else text
    if best.variant == view.reference:
        return f"{reference} ranks best ({place}). {chance}" if few else _lead_of_reference(view, place)
    text = f"{best.variant} ranks best ({place})"
    if not view.reference or best.gain is None:
        return f"{text}. There is no run of {reference}, so gains over it are left out."
    if best.gain < 0:  # ranks go by repeats, gains by means
        lost = f"it loses {-best.gain:.1f} points on average"
        return f"{text}, but its mean is below that of {reference}: {lost}, so it is not shown to be better."
    text += f" and gains {best.gain:.1f} points over {reference} on average"
    if few:
        return f"{text}. {chance}"
    return (
        f"{text}, significantly in {best.better} of {cells}." if best.better else f"{text}, significantly in no case."
    )


def _leaders(view: Overview) -> list[str]:
    """Return the variants of the best mean rank; several if they are tied."""
    return [standing.variant for standing in view.standings if standing.rank == view.standings[0].rank]


def _lead_of_reference(view: Overview, place: str) -> str:
    better = sum(s.better for s in view.standings)
    if not better:
        return f"No method beat {view.reference}, which ranks best ({place}): no gain over it is significant."
    found = "1 gain over it is" if better == 1 else f"{better} gains over it are"
    return f"No method ranks above {view.reference} ({place}), but {found} significant."


def _comparison_figures(records: Sequence[Record], view: Overview, failed: int) -> list[KeyFigure]:
    best = view.standings[0]
    repeats = {row.summary.n for row in view.rows if row.summary.n}
    figures = []
    scaled = any(record.scale for record in records)  # then no method is called better
    if len(view.variants) > 1 and best.rank is not None and not scaled:
        lost = best.gain is not None and best.gain < 0
        leaders = _leaders(view)
        behind = f", but its mean is below that of {view.reference}" if lost else ""
        note = f"mean rank {decimals(best.rank, 2)} of {len(view.variants)}{', tied' if len(leaders) > 1 else behind}"
        figures.append(KeyFigure("Ranks best", ", ".join(leaders), note, small=True))
    if view.reference and best.gain is not None and not scaled:
        name = f"Gain over {view.reference}" if best.gain >= 0 else f"Difference to {view.reference}"
        note = f"points, {best.variant}, mean over {count(len(view.cells), 'case')}"
        figures.append(KeyFigure(name, signed(best.gain, 1), note))
    note = f"{count(len(view.variants), 'method')}, {count(len(view.cells), 'case')}, {span(repeats or {0})} repeats"
    if failed:
        note += f"; {failed} failed"
    figures.append(KeyFigure("Finished runs", f"{len(records):,}", note))
    seconds = sum(record.cost.get("seconds") or 0.0 for record in records)
    figures.append(KeyFigure("Training time", duration(seconds), "all runs together"))
    return figures


def _run_figures(records: Sequence[Record]) -> list[KeyFigure]:
    if not records:
        return []
    record = records[0]
    title = SCORES[record.score].title
    figures = []
    test = f"{record.settings['folds']} folds" if record.settings.get("folds") else "Test"
    for name, metrics in ((test, record.test), ("Validation", record.validation)):
        if metrics and metrics[record.score] is not None:
            bounds = metrics.get(f"{record.score}_interval")
            spread = f"95 %: {interval(bounds)}" if bounds else f"{metrics['images']:,} images"
            named = name if name == "Validation" else f"{name}, {title}" if name != "Test" else f"{name} {title}"
            figures.append(KeyFigure(named, f"{metrics[record.score]:.1f} %", spread))
    probe = record.probe.get(f"val_{record.score}")
    if probe is not None and record.settings.get("method") != "probe":
        figures.append(KeyFigure("Linear probe", f"{probe:.1f} %", "validation, where the training started"))
    majority = (record.test or record.validation).get("majority")
    if majority is not None:
        figures.append(KeyFigure("Largest class", f"{majority:.1f} %", "always answering with it"))
    if record.test and record.test.get("ece") is not None:
        figures.append(KeyFigure("Calibration error", f"{record.test['ece']:.1f}", "points; 0 is ideal"))
    counts = " / ".join(f"{record.images.get(split, 0):,}" for split in ("train", "val", "test"))
    figures.append(KeyFigure("Images", f"{sum(record.images.values()):,}", f"{counts} train / val / test"))
    speed = record.cost.get("images_per_second")
    memory = record.cost.get("peak_memory_gigabytes")
    note = (f"{speed:.0f} images/s" if speed else "") + (f", peak memory {memory:.1f} GB" if memory else "")
    figures.append(KeyFigure("Training", duration(record.cost.get("seconds")), note))
    return figures
