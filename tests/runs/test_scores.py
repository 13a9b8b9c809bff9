"""The table of scores: its keys are those of tasks and metrics, its names those that people read."""

from __future__ import annotations

import pytest
import torch

from stochnorm.evaluation.tasks import MultiLabel, SingleLabel, Task
from stochnorm.runs.scores import MEAN_AUC, SCORES, TOP1, Score


def test_each_score_is_found_by_its_key() -> None:
    assert {key: score.key for key, score in SCORES.items()} == {"top1": "top1", "mean_auc": "mean_auc"}


@pytest.mark.parametrize(
    ("score", "title", "short", "column", "label"),
    [(TOP1, "top-1 accuracy", "top-1", "top-1", "class"), (MEAN_AUC, "mean AUC", "mean AUC", "AUC", "finding")],
)
def test_people_read_these_names(score: Score, title: str, short: str, column: str, label: str) -> None:
    assert (score.title, score.short, score.column, score.label) == (title, short, column, label)


@pytest.mark.parametrize(
    ("task", "score", "targets"),
    [
        (SingleLabel(("cat", "dog")), TOP1, torch.tensor([0, 1])),
        (MultiLabel(("hernia", "nodule"), resamples=0), MEAN_AUC, torch.tensor([[1, 0], [0, 1]])),
    ],
    ids=["top1", "mean_auc"],
)
def test_the_score_of_a_task_is_one_of_its_metrics(task: Task, score: Score, targets: torch.Tensor) -> None:
    assert (task.score, task.score_title) == (score.key, score.short)
    metrics = task.metrics(torch.eye(2), targets)
    assert metrics[score.key] == 100
    assert [key for key in SCORES if key in metrics] == [score.key]
    assert score.multi_label == isinstance(task, MultiLabel)
