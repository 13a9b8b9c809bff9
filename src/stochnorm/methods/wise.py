"""Weights between the start and the end of a training (WiSE-FT; Wortsman et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from stochnorm.methods.method import Method, percent, shown
from stochnorm.methods.ranges import Range

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["WiSE", "WiSEConfig"]

_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class WiSEConfig:
    """Method wise: weights between the probe and the end of the training."""

    share: Annotated[float | None, Range(0, 1)] = None
    """Share of the trained weights; None: that of 0, 0.25, 0.5, 0.75 and 1 with the best validation score."""


class WiSE(Method):
    """Keep weights on the line from the probe, which the training may start at, to the training's end."""

    name = "wise"
    title = "WiSE-FT"
    acts_on = "weights"
    what = "keep weights between the linear probe and the end of the training"
    source = "Wortsman et al., CVPR 2022"
    group = WiSEConfig
    mixes_probe = True

    def describe(self, settings: WiSEConfig) -> str:
        """Return the share, or how it is chosen."""
        return "share chosen on validation" if settings.share is None else f"share={settings.share:g}"

    def keep(
        self,
        start: Mapping[str, Tensor],
        ends: Sequence[Mapping[str, Tensor]],
        judge: Callable[[Mapping[str, Tensor]], tuple[float, float]],
        settings: WiSEConfig,
    ) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
        """Return the weights between, the share, and the validation score of each share that was tried."""
        from stochnorm.nn.mixtures import between

        shares = _SHARES if settings.share is None else (settings.share,)
        scores = {share: judge(between(start, ends[0], share)) for share in shares}
        chosen = max(scores, key=lambda share: scores[share])  # the first of equals: the nearest to the probe
        facts = {"share": chosen, "validation": {f"{share:g}": percent(score) for share, (score, _) in scores.items()}}
        return between(start, ends[0], chosen), facts

    def tell(self, facts: Mapping[str, Any]) -> str:
        """Return what was kept, in a sentence."""
        scores = ", ".join(f"{share}: {shown(score)}" for share, score in facts["validation"].items())
        return f"kept: {100 * facts['share']:.0f} % of the way from the probe to the end; validation by share: {scores}"
