"""Networks between networks, and soups of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from stochnorm.nn.mixtures import between, greedy_soup, mean, uniform_soup


def state(seed: int, features: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(features, 4), nn.BatchNorm1d(4))
    model(torch.randn(8, features))
    model(torch.randn(8, features)) if seed else None
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_the_ends_of_the_line_are_the_networks_bit_for_bit() -> None:
    start, end = state(0), state(1)
    for share, expected in ((0.0, start), (1.0, end)):
        found = between(start, end, share)
        assert all(torch.equal(found[key], expected[key]) for key in end if "num_batches" not in key)
        assert found["1.num_batches_tracked"] == 2


def test_what_lies_between_is_a_mixture_statistics_included() -> None:
    start, end = state(0), state(1)
    found = between(start, end, 0.25)
    for key in ("0.weight", "1.running_var", "1.running_mean"):
        torch.testing.assert_close(found[key], 0.75 * start[key] + 0.25 * end[key])
    torch.testing.assert_close(mean([start, end, end])["1.running_var"], between(start, end, 2 / 3)["1.running_var"])
    assert mean([start, end])["1.num_batches_tracked"] == 1


@pytest.mark.parametrize("other", [state(1, features=5), {"0.weight": torch.zeros(4, 3)}])
def test_other_networks_are_refused(other: dict[str, Tensor]) -> None:
    for mix in (lambda: between(state(0), other, 0.5), lambda: mean([state(0), other])):
        with pytest.raises(ValueError, match=r"the weights are not of one network: .* differs"):
            mix()
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 1.5"):
        between(state(0), state(1), 1.5)


def test_a_greedy_soup_is_never_worse_than_its_best_network_and_leaves_out_what_harms() -> None:
    """Judged by the distance to 0, which the mean of opposite errors has less of."""
    states = [{"w": torch.tensor(value)} for value in ([3.0, 3.0], [1.0, 0.0], [-1.0, 0.5], [0.0, 9.0])]
    asked: list[list[float]] = []

    def judge(weights: Mapping[str, Tensor]) -> float:
        asked.append(weights["w"].tolist())
        return -float(weights["w"].norm())

    soup = greedy_soup(states, judge)
    assert soup.members == [1, 2]
    assert soup.weights["w"].tolist() == [0.0, 0.25]
    assert soup.score == -0.25
    assert soup.scores == [judge(each) for each in states]
    assert [round(a, 3) for a, _ in asked[:7]] == [3, 1, -1, 0, 0, 1, 0]  # each alone, then the mean with each


def test_a_uniform_soup_is_the_mean_of_all() -> None:
    states = [{"w": torch.tensor(value)} for value in ([3.0, 3.0], [1.0, 0.0], [-1.0, 0.0])]
    soup = uniform_soup(states, lambda weights: float(weights["w"].sum()))
    assert soup.weights["w"].tolist() == [1.0, 1.0]
    assert (soup.members, soup.score, soup.scores) == ([0, 1, 2], 2.0, [6.0, 1.0, -1.0])


def test_a_soup_of_one_is_that_network() -> None:
    soup = greedy_soup([state(0)], lambda weights: 1.0)
    assert soup.members == [0]
    assert all(torch.equal(value, state(0)[key]) for key, value in soup.weights.items())
    with pytest.raises(ValueError, match="a soup needs at least one network, got none"):
        greedy_soup([], lambda weights: 1.0)
