"""Metrics of predictions that are read from the files of folds."""

from __future__ import annotations

import torch

from stochnorm.evaluation.tasks import MultiLabel, SingleLabel
from stochnorm.training.folds.pooled import _logits, in_words


def test_probabilities_have_their_logits_back() -> None:
    exact = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    single, several = SingleLabel(tuple("abcd")), MultiLabel(tuple("abcd"))
    p = single.probabilities(exact)
    torch.testing.assert_close(_logits(p, single.decide(p), single).softmax(1), p, atol=1e-6, rtol=0)
    p = several.probabilities(exact)
    torch.testing.assert_close(_logits(p, [], several), exact)


def test_a_tie_of_rounding_goes_to_the_predicted_class() -> None:
    task = SingleLabel(("a", "b", "c"))
    p = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    assert _logits(p, ["b", "a"], task).argmax(1).tolist() == [1, 0]
    assert _logits(p, ["b", "a"], task).isfinite().all()


def test_an_undefined_score_is_left_out_of_the_words() -> None:
    parts = [{"images": 4, "mean_auc": None}, {"images": 4, "mean_auc": 80.0}]
    final = {"score": "mean_auc", "images": {"train": 6, "val": 2}}
    words = in_words(parts, "mean AUC", final)
    assert words["estimate"].endswith("that has not seen it; by fold 80.0 to 80.0 % mean AUC")
    assert "had 50 % of the images" in words["model"]
