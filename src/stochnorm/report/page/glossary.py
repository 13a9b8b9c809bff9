"""The words that the page explains."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["GLOSSARY", "glossary"]

GLOSSARY = {
    "95 % interval": "The range of true values that agrees with this many test images or repeats. A gain whose "
    "interval contains 0 may be no gain.",
    "± (standard deviation)": "How much the repeats differ from each other.",
    "gain": "Score minus the score of the reference, on the same images in the same order, so that luck with the "
    "images cancels out.",
    "best and tied": "Best is the highest mean. Tied is not significantly worse than the best, which does not prove it "
    "equal.",
    "p (Holm)": "How often chance alone would give so large a gain, corrected for comparing several methods. A "
    "gain with p below 0.05 is called significant.",
    "mean rank": "Each repeat of a case ranks the methods, 1 is the best; this is the mean of the ranks.",
    "case": "One data set, backbone and sampling rate.",
    "sampling rate": "The fraction of the training images that was used.",
    "calibration error (ECE)": "The mean distance between probability and accuracy, in points. Small is good.",
    "AUC": "How often an image with the finding scores higher than one without it. 50 % is chance.",
    "validation score": "The score on the images held out for validation. They chose the checkpoint, so it is "
    "optimistic; the test score is not.",
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
