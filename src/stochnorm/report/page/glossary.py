"""The words that the page explains."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["GLOSSARY", "glossary"]

GLOSSARY = {
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


def glossary(words: Collection[str]) -> list[tuple[str, str]]:
    """Return the words with their meanings, in the glossary's order.

    Raises:
        ValueError: A word has no meaning.

    Example:
        >>> glossary({"case"})
        [('case', 'One data set, backbone and sampling rate.')]
    """
    if missing := [word for word in words if word not in GLOSSARY]:
        raise ValueError(f"the glossary must explain every word, got {missing}; add them to GLOSSARY")
    return [(word, meaning) for word, meaning in GLOSSARY.items() if word in words]
