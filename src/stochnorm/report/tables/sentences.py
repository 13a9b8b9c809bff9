"""Conclusions from a comparison, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from stochnorm.report.statistics import FEW, Difference, Rank, significant
from stochnorm.report.tables.content import UNDONE, Results, collect, scales
from stochnorm.runs.records import Record
from stochnorm.text import count, format_p, interval

__all__ = ["conclude", "conclusions", "standing_in_words"]


def conclusions(records: Sequence[Record], reference: str = "vanilla") -> list[str]:
    """Return what the differences to the reference show and do not show, in sentences.

    Example:
        >>> conclusions([])
        ['No run is finished.']
    """
    return conclude(collect(records, reference), records)


def conclude(results: Results, records: Sequence[Record]) -> list[str]:
    """Return the conclusions from collected results."""
    found, reference = results.differences, results.reference
    if not records:
        return [UNDONE]
    if all(record.scale for record in records):
        return [f"These runs are {scales(records)} scale: they show that the comparison works and are no result."]
    if not any(row.summary.n for row in results.rows):
        return ["No run has a test score, so nothing is compared."]
    if len(results.variants) < 2:
        return ["There is one variant, so nothing is compared."]
    if reference not in results.variants:
        return [f"There is no run of {reference}, so there are no differences to it; choose another reference."]
    enough = [d for d in found if d.n >= FEW]
    shown = [d for d in enough if significant(d)]
    sentences = [_sentence(d, results) for d in shown]
    if len(enough) > len(shown):
        sentences.append(
            f"Not significant at 5 % after Holm: {len(enough) - len(shown)} of {count(len(enough), 'difference')} to "
            f"{reference} (n of {FEW} or more). This proves neither a difference nor equality."
        )
    if few := [d for d in found if d.n < FEW]:
        counts = " or ".join(str(n) for n in sorted({d.n for d in few}))
        sentences.append(
            f"Nothing can be concluded from n = {counts}: {count(len(few), 'difference')} to {reference}. Repeat with "
            f"{FEW} seeds at least, better 5 or more."
        )
    sentences += [
        f"{results.names[s.cell]}: {s.variant} and {reference} have no repetition (data_seed and seed) in common, so "
        "they are not compared."
        for s, gain, *_ in results.rows
        if s.n and s.variant != reference and gain is None
    ]
    return sentences


def _sentence(d: Difference, results: Results) -> str:
    assert d.interval is not None and d.p_holm is not None  # it is significant
    return (
        f"{results.names[d.cell]}: {d.variant} - {d.reference}: {d.mean:+.2f} points (95 %: "
        f"{interval(d.interval, '.2f')}; p {format_p(d.p_holm)} after Holm, n = {d.n})."
    )


def standing_in_words(standing: Sequence[Rank], p: float | None) -> str:
    """Explain mean ranks, with the p of Friedman's test."""
    text = f"1 is the best; over {count(standing[0].blocks, 'repetition')} that all variants have"
    return f"{text}." if p is None else f"{text}; Friedman's test that all rank alike: p {format_p(p)}."
