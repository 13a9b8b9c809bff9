"""What was chosen, trained once more: on training and validation images, since nothing is left to choose."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run
from stochnorm.training.auto.candidates import Candidate, Kind
from stochnorm.training.auto.choose import Choice
from stochnorm.training.auto.probing import fitted_probe
from stochnorm.training.auto.search import Search
from stochnorm.training.auto.state import State
from stochnorm.training.auto.weights import between
from stochnorm.training.display import Display
from stochnorm.training.probe.probe import Probe, put_into_head
from stochnorm.training.train import train

__all__ = ["REFIT", "Refitted", "refit"]

REFIT = "refit"
"""Its run."""


class Refitted(NamedTuple):
    """A model of training and validation images."""

    weights: dict[str, Tensor]
    probe: Probe | None
    """The probe, if that is what was chosen."""
    facts: dict[str, Any]
    """What `result.json` says of it: images and seconds."""


def refit(search: Search, choice: Choice, state: State, display: Display) -> Refitted | None:
    """Train what was chosen once more, with the same settings and steps, on training and validation images.

    Weights between the probe and a fine-tuned network are between the new ones, at the same share.

    Returns:
        None where there is no time for it, or where it diverges: what was chosen is kept as it is.
    """
    job, start = search.job, time.monotonic()
    name, share = search.of.get(choice.name, (choice.name, 1.0))
    tried = state.tried[name]
    candidate = Candidate(Kind[tried.kind], {k: v for k, v in tried.settings.items() if k != "steps"})
    if name != "probe" and not search.clock.time_for_again(candidate, tried.steps):
        display.note("no time left to train it once more with the validation images; give a longer --budget")
        return None
    probe = probed = None
    if name == "probe" or candidate.warm or share < 1:
        job.classifier.model.load_state_dict(search.state_of("probe"))
        probe = fitted_probe(job, "always")
        put_into_head(job.classifier, probe.head)
        probed = {key: value.detach().cpu().clone() for key, value in job.classifier.model.state_dict().items()}
    weights = probed
    if name != "probe":
        run = Run(search.directory(name).path.with_name(REFIT))
        config = replace(search.settings(candidate, REFIT, tried.steps, 1), patience=0)
        with display.measuring("training with the validation images too") as progress:
            progress(0.0)
            try:
                train(config, quiet=True, test=False, probe=probe if candidate.warm else None, together=True)
            except FloatingPointError as error:
                display.note(f"training with the validation images failed ({error}); what was chosen is kept")
                return None
        weights = read_state_dict(run.model)
        if share < 1:
            assert probed is not None
            weights = between(probed, weights, share)
    assert weights is not None
    images = job.counts["train"] + job.counts["val"]
    return Refitted(
        weights, probe if name == "probe" else None, {"images": images, "seconds": time.monotonic() - start}
    )
