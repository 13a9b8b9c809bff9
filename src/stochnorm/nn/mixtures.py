"""Networks between networks: weights on the line from one to another, and the mean of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

__all__ = ["Soup", "between", "greedy_soup", "mean", "uniform_soup"]

Weights = Mapping[str, Tensor]
Score = TypeVar("Score", float, tuple[float, float])


def between(start: Weights, end: Weights, share: float) -> dict[str, Tensor]:
    """Return (1 - share) * start + share * end for each floating tensor, statistics of normalization included.

    Wortsman et al., *Robust fine-tuning of zero-shot models* (WiSE-FT), CVPR 2022. Counters are those of the end.

    Raises:
        ValueError: The two are not of one network, or the share is outside [0, 1].

    Example:
        >>> between({"w": torch.tensor([0.0, 4])}, {"w": torch.tensor([4.0, 0])}, 0.25)
        {'w': tensor([1., 3.])}
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    _check_same(start, end)
    return {
        key: start[key].lerp(value, share) if value.is_floating_point() else value.clone() for key, value in end.items()
    }


def mean(states: Sequence[Weights]) -> dict[str, Tensor]:
    """Return the mean of each floating tensor, statistics of normalization included; counters are those of the first.

    Raises:
        ValueError: There is none, or they are not of one network.

    Example:
        >>> mean([{"w": torch.tensor([0.0, 4])}, {"w": torch.tensor([4.0, 0])}])
        {'w': tensor([2., 2.])}
    """
    if not states:
        raise ValueError("a mean needs at least one network, got none")
    for other in states[1:]:
        _check_same(states[0], other)
    return {
        key: torch.stack([state[key] for state in states]).mean(0) if value.is_floating_point() else value.clone()
        for key, value in states[0].items()
    }


class Soup(NamedTuple, Generic[Score]):
    """A mean of networks, and how it scores."""

    weights: dict[str, Tensor]
    members: list[int]
    """Numbers of the networks in it, in the order in which they came in."""
    score: Score
    """Its score."""
    scores: list[Score]
    """Those of the networks, as they were given."""


def greedy_soup(states: Sequence[Weights], judge: Callable[[Weights], Score]) -> Soup[Score]:
    """Return the mean of the networks that help: from the best on, each stays in if the mean scores no worse with it.

    Wortsman et al., *Model soups*, ICML 2022, recipe 1.

    Args:
        states: Weights of networks of one start, at least one.
        judge: Returns the score of weights, on held-out images; higher is better.

    Raises:
        ValueError: There is none, or they are not of one network.

    Example:
        >>> states = [{"w": torch.tensor([value])} for value in (1.0, 5.0, 2.0)]
        >>> soup = greedy_soup(states, lambda state: -abs(float(state["w"]) - 2.5))
        >>> soup.members, soup.weights
        ([2], {'w': tensor([2.])})
    """
    if not states:
        raise ValueError("a soup needs at least one network, got none")
    scores = [judge(state) for state in states]
    order = sorted(range(len(states)), key=lambda number: scores[number], reverse=True)  # stable: the first of equals
    members: list[int] = order[:1]
    weights, best = dict(states[order[0]]), scores[order[0]]
    for number in order[1:]:
        tried = mean([states[member] for member in (*members, number)])
        score = judge(tried)
        if score >= best:
            weights, members, best = tried, [*members, number], score
    return Soup(weights, members, best, scores)


def uniform_soup(states: Sequence[Weights], judge: Callable[[Weights], Score]) -> Soup[Score]:
    """Return the mean of all networks, judged; arguments and errors as for [stochnorm.nn.mixtures.greedy_soup][]."""
    weights = mean(states)
    return Soup(weights, list(range(len(states))), judge(weights), [judge(state) for state in states])


def _check_same(first: Weights, second: Weights) -> None:
    differing = {key for key in {*first, *second} if key not in first or key not in second}
    differing |= {key for key in {*first} & {*second} if first[key].shape != second[key].shape}
    if differing:
        raise ValueError(f"the weights are not of one network: {min(differing)} differs; use runs of one backbone")
