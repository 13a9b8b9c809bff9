"""Soup of runs with different seeds (Wortsman et al., ICML 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from stochnorm.methods.method import Method, percent, shown
from stochnorm.methods.ranges import Range

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Soup", "SoupConfig"]


@dataclass(frozen=True)
class SoupConfig:
    """Method soup: mean of the weights of several trainings, chosen on validation."""

    runs: Annotated[int, Range(2, 50)] = 3
    """Trainings, with a random seed each."""
    recipe: Literal["greedy", "uniform"] = "greedy"
    """Which trainings go into the mean: those that help on validation images, or all."""


class Soup(Method):
    """Train several times, and keep the mean of the weights."""

    name = "soup"
    title = "soup"
    acts_on = "weights"
    what = "train with several seeds from one probe, and keep the mean of the weights that help on validation"
    source = "Wortsman et al., ICML 2022"
    group = SoupConfig
    needs = (("head", "probe", "networks whose heads started at random have no mean of use"),)

    def describe(self, settings: SoupConfig) -> str:
        """Return the recipe and the number of trainings."""
        return f"{settings.recipe}, of {settings.runs} runs"

    def runs(self, settings: SoupConfig) -> int:
        """Return the number of trainings."""
        return settings.runs

    def keep(
        self,
        start: Mapping[str, Tensor],
        ends: Sequence[Mapping[str, Tensor]],
        judge: Callable[[Mapping[str, Tensor]], tuple[float, float]],
        settings: SoupConfig,
    ) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
        """Return the soup, the numbers of the runs in it, and the validation scores of each run and of it."""
        from stochnorm.nn import mixtures

        soup = (mixtures.greedy_soup if settings.recipe == "greedy" else mixtures.uniform_soup)(ends, judge)
        facts = {
            "members": soup.members,
            "runs": [percent(score) for score, _ in soup.scores],
            "validation": percent(soup.score[0]),
        }
        return soup.weights, facts

    def tell(self, facts: Mapping[str, Any]) -> str:
        """Return what was kept, in a sentence."""
        scores, members = ", ".join(map(shown, facts["runs"])), len(facts["members"])
        kept = f"the mean of {members} of {len(facts['runs'])} runs" if members > 1 else "the best run alone"
        return f"kept: {kept}, {shown(facts['validation'])} on validation; the runs: {scores}"
