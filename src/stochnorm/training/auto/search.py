"""The search of `auto`: a probe, fine-tuned candidates, and weights between the two."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from stochnorm.methods.auto import AutoConfig, within
from stochnorm.models.weights import read_state_dict
from stochnorm.nn.select import normalization_layers
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.runs.warning import warnings_once
from stochnorm.training.auto.budget import FEWEST_STEPS, Pace, plan
from stochnorm.training.auto.candidates import Candidate, Kind, candidates, cooler
from stochnorm.training.auto.choose import Choice, Scored, choose
from stochnorm.training.auto.clock import Clock
from stochnorm.training.auto.judge import Judge, Verdict
from stochnorm.training.auto.probing import fitted_probe, write_probe
from stochnorm.training.auto.state import State, Tried
from stochnorm.training.auto.weights import SHARES, between
from stochnorm.training.display import Display
from stochnorm.training.job import Job
from stochnorm.training.probe.probe import Probe
from stochnorm.training.train import train

__all__ = ["TIMING", "Search"]

TIMING = "timing"
"""The run that measures the pace."""

_TIMED = {"cuda": 28}  # steps of the run that measures the pace, by device: on a GPU the first ones are slow
_TIMED_ELSEWHERE = 6
_HARMLESS = 1e-6  # its learning rate, at which nothing diverges
_VALIDATIONS = 3  # of a run, for its curves; they take time


class Search:
    """Tries candidates within a budget of time, and chooses one on validation images.

    Args:
        job: A job without method, whose model is as pre-trained. Its settings that were changed hold for every
            candidate; candidates are runs in a folder of its directory.
        state: What was done so far.
        display: Where progress is shown.
        seconds: Time for all.
        validated: Told the record of each validation.
    """

    def __init__(
        self,
        job: Job,
        state: State,
        display: Display,
        *,
        seconds: float,
        validated: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.job, self._config, self._run, self._judge = job, job.config, job.run, Judge(job)
        self._state, self._display, self._validated = state, display, validated
        self.clock = Clock(state, seconds, again=self._config.refit)
        """The time that is left."""
        self._fitted: Probe | None = None
        self._judging = 0.0  # seconds that judging one model takes
        self.verdicts: dict[str, Verdict] = {}
        """The judgement of each candidate that was not dropped, by name."""
        self.of: dict[str, tuple[str, float]] = {}
        """Of weights between: the fine-tuned candidate and its share."""

    def search(self, reserve: Callable[[float], float]) -> Choice:
        """Try everything; return the choice.

        Args:
            reserve: Returns the seconds to leave for the end, from the seconds that judging one model takes.
        """
        with warnings_once():
            warm, config = self._probe(), self._config
            if config.head == "probe" and not warm:
                raise ValueError(self._state.tried["probe"].reason)
            found = candidates(
                config,
                warm=warm and config.statistics == "pretrained",  # the probe is of the network with these
                normalized=bool(normalization_layers(self.job.classifier.model)),
            )
            again = self._state.tried["probe"].seconds * config.refit
            clock, most = self.clock, self.clock.seconds / 3
            clock.end = self._state.decided("reserve", lambda: min(reserve(self._judging) + again, most))
            clock.pace = Pace(*self._state.decided("pace", lambda: self._measured(found[0])))
            count, steps = self._state.decided("plan", lambda: self._plan([candidate.cost for candidate in found]))
            if not count:
                self._display.note(
                    f"no time to fine-tune within {within(self._config.budget)}; a longer --budget tries more"
                )
            queue, spare = found[:count], found[count:] if count else []
            while queue or (spare and clock.time_for(spare[0], steps)):
                candidate = queue.pop(0) if queue else spare.pop(0)
                some = clock.some([candidate, *queue], steps)
                for late in queue[some - 1 :]:
                    self._try(late, 0)
                queue = queue[: some - 1]
                fitting = clock.steps_of(candidate, queue, steps, needed=not self.verdicts)
                if not self._try(candidate, fitting) and candidate in found:
                    lower = cooler(candidate)
                    queue += [lower] * (lower.name not in {one.name for one in (*found, *queue)})
        return self._choice()

    def state_of(self, name: str) -> dict[str, Tensor]:
        """Return the weights of a candidate."""
        if name in self.of:
            tuned, share = self.of[name]
            return between(self.state_of("probe"), self.state_of(tuned), share)
        return read_state_dict(self.directory(name).model)

    def directory(self, name: str) -> Run:
        """Return the run of a candidate; of weights between, that of the fine-tuned one."""
        return Run(self._run.candidates / self._tuned(name))

    def _tuned(self, name: str) -> str:
        """Return the candidate itself; of weights between, the fine-tuned one."""
        return self.of.get(name, (name, 1.0))[0]

    def _plan(self, costs: Sequence[int]) -> tuple[int, int]:
        per_pass = max(self.job.counts["train"] // self._config.batch_size, 1)
        most = self._config.steps if "steps" in self._config.changed_fields() else 10**9
        count, steps = plan(self.clock.left, self.clock.pace, costs, per_pass, most, again=self._config.refit)
        if not count and "probe" not in self.verdicts:  # something has to be there at the end
            return 1, min(FEWEST_STEPS, most)
        return count, steps

    def _probe(self) -> bool:
        """Fit and judge the probe; return whether there is one: a network without a linear head has none."""
        name, start = "probe", time.monotonic()
        before = self._state.tried.get(name)
        reason = before.reason if before else ""
        if not before:
            try:
                with self._display.measuring("linear probe") as progress:
                    progress(0.0)
                    self._fitted = write_probe(self.job, self.directory(name))
            except ValueError as error:
                reason = str(error)
        judged = time.monotonic()
        if not reason:
            self.verdicts[name] = self._judge.verdict(self.state_of(name))
        self._judging = self._state.decided("judging", lambda: time.monotonic() - judged)
        self._add(Tried(name, "linear probe", name, {}, 0, time.monotonic() - start, self._score(name), reason))
        return not reason

    def _try(self, candidate: Candidate, steps: int) -> bool:
        """Train a candidate and judge it, and weights between the probe and it; return whether it may be chosen."""
        name, start = candidate.name, time.monotonic()
        before = self._state.tried.get(name)
        reason = before.reason if before else "" if steps else "no time left"
        if steps or before:
            self.clock.tried(candidate)
        if not before and not reason:
            reason = self._train(candidate, steps)
        if not reason:
            self.verdicts[name] = verdict = self._judge.verdict(self.state_of(name))
            probe = self.verdicts.get("probe")
            if probe and verdict.score <= self._judge.guessing < probe.score:
                del self.verdicts[name]
                reason = f"collapsed: no better than guessing ({self._judge.guessing:.1f} %)"
            steps = self.directory(name).read_result().get("stopped_early", steps)
        settings, seconds = candidate.settings | {"steps": steps}, time.monotonic() - start
        self._add(
            Tried(name, candidate.title, candidate.kind.name, settings, steps, seconds, self._score(name), reason)
        )
        if not reason and "probe" in self.verdicts:
            for share in SHARES:
                self._between(candidate, share)
        return not reason

    def _between(self, candidate: Candidate, share: float) -> None:
        """Judge weights between the probe and a candidate."""
        name, start = f"{candidate.name}@{share:g}", time.monotonic()
        self.of[name] = (candidate.name, share)
        self.verdicts[name] = self._judge.verdict(self.state_of(name))
        title = f"{candidate.title}, {100 * share:.0f} % of the change"
        seconds = time.monotonic() - start
        self._add(Tried(name, title, Kind.between.name, {"share": share}, 0, seconds, self._score(name)))

    def _train(self, candidate: Candidate, steps: int) -> str:
        """Train a candidate; return why it is dropped, empty if it is not."""
        config = self.settings(candidate, candidate.name, steps, _VALIDATIONS)
        with self._display.measuring(candidate.title) as progress:
            progress(0.0)

            def tell(record: dict[str, Any]) -> None:
                progress(record["step"] / max(steps, 1))
                if self._validated is not None:
                    self._validated(record)

            start = time.monotonic()
            try:
                cost = train(config, quiet=True, test=False, validated=tell, probe=self._start(candidate)).record[
                    "cost"
                ]
            except FloatingPointError as error:
                return str(error).partition(":")[0]
            self.clock.pace = self._pace_of(candidate, steps, cost["images_per_second"], time.monotonic() - start)
        return ""

    def _start(self, candidate: Candidate) -> Probe | None:
        """Return the probe that a candidate starts from, which is fitted once, and once more after a stop."""
        if candidate.warm and self._fitted is None:
            self.job.classifier.model.load_state_dict(self.state_of("probe"))
            self._fitted = fitted_probe(self.job)
        return self._fitted if candidate.warm else None

    def settings(self, candidate: Candidate, name: str, steps: int, validations: int) -> FinetuneConfig:
        """Return the settings of the run of a candidate, which is called `name`."""
        path = self._run.candidates / name
        return replace(
            self._config,
            **candidate.settings,
            steps=steps,
            eval_every=self._config.eval_every or -(-steps // validations),
            log="none",
            select="last",  # the best of several validations would be chosen twice
            **asdict(AutoConfig()),
            out=str(path),
            report=False,
            resume=(path / "config.json").is_file(),
            overwrite=False,
        )

    def _measured(self, candidate: Candidate) -> Pace:
        """Measure the time of a run by a short one."""
        steps = _TIMED.get(self._judge.device.type, _TIMED_ELSEWHERE)
        timing = self.settings(candidate, TIMING, steps, 1)
        config = replace(timing, resume=False, overwrite=True, lr=_HARMLESS)
        with self._display.measuring("measuring the pace") as progress:
            progress(0.0)
            start = time.monotonic()
            cost = train(config, quiet=True, test=False, probe=self._start(candidate)).record["cost"]
        return self._pace_of(candidate, steps, cost["images_per_second"], time.monotonic() - start)

    def _pace_of(self, candidate: Candidate, steps: int, images_per_second: float, whole: float) -> Pace:
        """Return the pace that a run shows; judging it, and weights between, included."""
        step = self._config.batch_size / images_per_second
        return Pace(step / candidate.cost, max(whole - steps * step, 0.0) + (1 + len(SHARES)) * self._judging)

    def _choice(self) -> Choice:
        if not self.verdicts:
            reasons = "; ".join(f"{one.title}: {one.reason}" for one in self._state.tried.values())
            raise FloatingPointError(f"nothing that was tried can be kept ({reasons}); give a lower --lr")
        scored = [
            Scored(name, self._kind(name), verdict.score, verdict.loss, self._kind(self._tuned(name)) is Kind.frozen)
            for name, verdict in self.verdicts.items()
        ]
        return choose(scored, lambda a, b: self._judge.error(self.verdicts[a].logits, self.verdicts[b].logits))

    def _kind(self, name: str) -> Kind:
        return Kind[self._state.tried[name].kind]

    def _score(self, name: str) -> float | None:
        return self.verdicts[name].score if name in self.verdicts else None

    def _add(self, tried: Tried) -> None:
        """Keep a candidate, unless it was tried before a stop, and show it."""
        if tried.name not in self._state.tried:
            self._state.add(tried)
        tried = self._state.tried[tried.name]
        score = "     -" if tried.validation is None else f"{tried.validation:5.1f} %"
        steps = f", {tried.steps} steps" if tried.steps else ""
        why = f"; dropped, {tried.reason}" if tried.reason else ""
        between = tried.kind == Kind.between.name
        title = "    " + tried.title.rpartition(", ")[2] if between else tried.title
        self._display.note(f"{score}  {title}{steps}{'' if between else f', {tried.seconds:.0f} s'}{why}")
