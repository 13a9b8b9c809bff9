"""The sections of the page, in order: this list is the one place to add to.

A section is an entry here and a template of its name, ``templates/ID.html``. The template of a section of the page sees
``part``, the values of its [stochnorm.report.page.sections.Part][]; that of a section of a run also ``d``, its
[stochnorm.report.page.details.Details][], and ``r``, its record. ``parts`` has the macros of ``templates/parts.html``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from stochnorm.report.page.advice import advice
from stochnorm.report.page.cases import cases
from stochnorm.report.page.charts import Figure, Style
from stochnorm.report.page.comparison_charts import accuracy_figure, gain_figure
from stochnorm.report.page.content import Content
from stochnorm.report.page.details import Details
from stochnorm.report.page.run_charts import (
    NAMED,
    calibration_figure,
    class_figure,
    confusion_figure,
    curve_figure,
)
from stochnorm.report.page.settings import environments

__all__ = ["RUN_SECTIONS", "SECTIONS", "Part", "Section"]

_LISTED = 6  # of the weakest and the strongest classes
_TRAINING, _VALIDATION, _REFERENCE = Style("var(--s0)", "circle"), Style("var(--s1)", "circle"), Style("var(--s2)", "")

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """The content of a section."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """For its template."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """Its charts, by names that are unique in the page."""
    title: str = ""
    """Its name in the navigation, if it is not the section's."""
    links: Sequence[tuple[str, str]] = ()
    """Anchors inside it with their names in the navigation."""
    terms: Collection[str] = ()
    """Words of the glossary that this content needs besides the section's."""


@dataclass(frozen=True)
class Section(Generic[T]):
    """One section of the page."""

    id: str
    """Its anchor, and the name of its template."""
    title: str
    """Its name in the navigation; empty to leave it out there."""
    part: Callable[[T], Part | None]
    """Return what it shows; None when it has nothing to say."""
    terms: Collection[str] = ()
    """Words of the glossary that it uses."""


def _results(content: Content) -> Part | None:
    return Part({"view": content.view}) if content.view else None


def _charts(content: Content) -> Part | None:
    view = content.view
    if view is None:
        return None
    figures = {}
    for number, group in enumerate(view.groups):
        rows = [row for entries in group.rows.values() for row in entries if row]
        figures[f"accuracy-{number}"] = accuracy_figure([row.summary for row in rows], content.style)
        gains = [row.gain for row in rows if row.gain]
        if gains:
            figures[f"gain-{number}"] = gain_figure(gains, content.style)
    several_rates = any(len(group.rates) > 1 for group in view.groups)
    return Part({"view": view, "several_rates": several_rates, "names": set(figures)}, figures)


def _table(content: Content) -> Part | None:
    view = content.view
    if view is None:
        return None
    several_backbones = len({cell.backbone for cell in view.cells}) > 1
    rates = sorted({cell.rate for cell in view.cells})
    return Part({"view": view, "rates": rates, "several_backbones": several_backbones})


def _runs(content: Content) -> Part | None:
    if content.view is None or not content.details:
        return None
    found = cases(content.details, content.style)
    number = {case.cell: i for i, case in enumerate(found)}
    runs = [_one_run(details) for details in content.details]
    shown = [
        {**run.values, "case": number[details.record.cell], "hidden": i > 0}
        for i, (run, details) in enumerate(zip(runs, content.details, strict=True))
    ]
    figures = {case.id: case.figure for case in found if case.figure}
    for run in runs:
        figures |= run.figures
    values = {"rule": content.rule, "cases": found, "variants": content.view.variants, "runs": shown}
    return Part(values, figures, terms={term for run in runs for term in run.terms})


def _run(content: Content) -> Part | None:
    if content.view is not None or not content.details:
        return None
    part = _one_run(content.details[0])
    return replace(part, values={"run": {**part.values, "case": 0, "hidden": False}})


def _one_run(details: Details) -> Part:
    found = [(section, part) for section in RUN_SECTIONS if (part := section.part(details)) is not None]
    return Part(
        {"details": details, "parts": [(section, part.values) for section, part in found]},
        {name: figure for _, part in found for name, figure in part.figures.items()},
        links=[(section.id, part.title or section.title) for section, part in found if section.title],
        terms={term for section, part in found for term in (*section.terms, *part.terms)},
    )


def _failures(content: Content) -> Part | None:
    return Part({"failures": content.failures}) if content.failures else None


def _cost(content: Content) -> Part | None:
    view = content.view
    if view is None:
        return None
    has_memory = any(cost.memory is not None for cost in view.costs)
    longest = max((cost.seconds or 0.0 for cost in view.costs), default=0.0) or 1.0
    return Part({"view": view, "has_memory": has_memory, "longest": longest})


def _settings(content: Content) -> Part | None:
    if not content.details:
        return None
    own = content.details[0].settings
    return Part({"view": content.view, "own": own, "environments": environments(content.records)})


def _scores(details: Details) -> Part:
    return Part(terms={"AUC"} if details.multi_label else ())


def _folds(details: Details) -> Part | None:
    parts = details.folds.get("parts")
    if not parts:
        return None
    score = details.record.score
    return Part({"parts": parts, "largest": max((part[score] or 0.0 for part in parts), default=0.0) or 1.0})


def _tried(details: Details) -> Part | None:
    tried = details.auto.get("tried")
    if not tried:
        return None
    largest = max((one["validation"] or 0.0 for one in tried), default=0.0) or 1.0
    named = [
        one | {"title": one["title"].rpartition(", ")[2]} if one["kind"] == "between" else one for one in tried
    ]  # below the candidate that they are a part of
    return Part({"tried": named, "largest": largest})


def _curves(details: Details) -> Part | None:
    if not details.history:
        return None
    figures, with_reference = {}, False
    for kind, name in (("loss", "loss"), ("score", details.record.score)):
        curves = {
            title: ([r["step"] for r in history], [r.get(key) for r in history], style)
            for title, key, style, history in (
                ("reference, validation", f"val_{name}", _REFERENCE, details.reference),
                ("training", f"train_{name}", _TRAINING, details.history),
                ("validation", f"val_{name}", _VALIDATION, details.history),
            )
            if any(key in record for record in history)
        }
        with_reference |= "reference, validation" in curves
        figures[f"{details.id}-{kind}"] = curve_figure(curves, details.record.step, percent=kind == "score")
    return Part({"with_reference": with_reference}, figures)


def _classes(details: Details) -> Part | None:
    if not details.scores:
        return None
    figure = class_figure(details.scores, start=50.0 if details.multi_label else 0.0)
    known = sorted((s for s in details.scores if s.value is not None), key=lambda s: s.value or 0.0)
    many = len(known) > NAMED
    values = {"weakest": known[:_LISTED] if many else [], "strongest": known[: -_LISTED - 1 : -1] if many else []}
    title = "Findings" if details.multi_label else ""
    return Part(values, {f"{details.id}-classes": figure}, title=title)


def _confusion(details: Details) -> Part | None:
    if not details.confusion:
        return None
    return Part(figures={f"{details.id}-confusion": confusion_figure(details.confusion, details.classes)})


def _mistakes(details: Details) -> Part | None:
    return Part() if details.mistakes else None


def _next(details: Details) -> Part | None:
    found = advice(details)
    return Part({"advice": found}) if found else None


def _calibration(details: Details) -> Part | None:
    if not details.bins:
        return None
    return Part(figures={f"{details.id}-calibration": calibration_figure(details.bins)})


_INTERVAL, _ECE = "95 % interval", "calibration error (ECE)"
_SPREAD, _GAIN, _RATE = "± (standard deviation)", "gain", "sampling rate"

RUN_SECTIONS: tuple[Section[Details], ...] = (
    Section("scores", "", _scores, (_INTERVAL, _RATE, _ECE, "validation score")),
    Section("folds", "Folds", _folds, (_INTERVAL,)),
    Section("mistakes", "Mistakes", _mistakes),
    Section("next", "What to do next", _next),
    Section("tried", "What was tried", _tried, ("validation score",)),
    Section("curves", "Curves", _curves),
    Section("classes", "Classes", _classes),
    Section("confusion", "", _confusion),
    Section("calibration", "Calibration", _calibration),
)
"""The sections of one run, in order; in a comparison inside the section ``runs``."""

SECTIONS: tuple[Section[Content], ...] = (
    Section("results", "Results", _results, (_SPREAD, "best and tied", "mean rank", "case")),
    Section("charts", "Charts", _charts, (_SPREAD, _GAIN, _INTERVAL)),
    Section("table", "All results", _table, (_SPREAD, _GAIN, _INTERVAL, "p (Holm)", _ECE)),
    Section("runs", "Runs in detail", _runs),
    Section("run", "Scores", _run),
    Section("failures", "Failures", _failures),
    Section("cost", "Cost", _cost),
    Section("settings", "Settings", _settings),
)
"""The sections of the page, in order, between the header and the glossary."""
