"""The search of `auto`: a probe, a short round of candidates, a long one of the best two, and weights between."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from stochnorm.models.weights import read_state_dict
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.training.auto.budget import Pace, first_round, second_round
from stochnorm.training.auto.candidates import Candidate, Kind, candidates, cooler, timed
from stochnorm.training.auto.choose import Choice, Scored, choose
from stochnorm.training.auto.judge import Judge, Verdict
from stochnorm.training.auto.probing import write_probe
from stochnorm.training.auto.state import State, Tried
from stochnorm.training.auto.weights import SHARES, between
from stochnorm.training.display import Display
from stochnorm.training.job import Job
from stochnorm.training.train import train

__all__ = ["Search"]

_FIRST = 1 / 3  # of the budget, for the first round and what comes before
_TIMED = {"cuda": 28}  # steps of the run that measures the pace, by device: on a GPU the first ones are slow
_TIMED_ELSEWHERE = 6
_VALIDATIONS = {"": 3, "-long": 6}  # per run: each takes time, and chooses among more models than the images can tell


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
        self._job, self._config, self._run, self._judge = job, job.config, job.run, Judge(job)
        self._state, self._display, self._seconds, self._validated = state, display, seconds, validated
        config = job.config
        self._per_pass = max(job.counts["train"] // config.batch_size, 1)
        self._most = config.steps if "steps" in config.changed_fields() else 10**9
        self.verdicts: dict[str, Verdict] = {}
        """The judgement of each candidate that was not dropped, by name."""
        self.of: dict[str, tuple[str, float]] = {}
        """Of weights between: the fine-tuned candidate and its share."""

    def search(self, reserve: Callable[[float], float]) -> Choice:
        """Try everything; return the choice.

        Args:
            reserve: Returns the seconds to leave for the end, from the seconds that judging one model takes.
        """
        warm, judging = self._probe()
        end = self._state.decided("reserve", lambda: min(reserve(judging), self._seconds / 3))
        found = candidates(self._config, warm=warm)
        pace = Pace(*self._state.decided("pace", lambda: self._pace(timed(found))))
        tried, steps = self._state.decided(
            "first",
            lambda: first_round(
                self._seconds * _FIRST - self._state.seconds, pace, len(found), self._per_pass, self._most
            ),
        )
        if not tried:
            self._display.note(f"no time to fine-tune within {self._config.budget}; a longer --budget tries more")
        queue = found[:tried]
        for candidate in queue:
            lower = cooler(candidate)
            collapsed = not self._try(candidate, steps)
            if collapsed and candidate in found and lower.name not in {other.name for other in queue}:
                queue.append(lower)
        known = {candidate.name: candidate for candidate in queue if candidate.name in self.verdicts}
        best = self._state.decided("best", lambda: self._best_two(known))
        for name in best:
            left = len(best) - best.index(name)
            longer = self._state.decided(
                f"{name}-long",
                lambda left=left: second_round(  # type: ignore[misc]
                    (self._seconds - end - self._state.seconds) / left, pace, self._per_pass, self._most, steps
                ),
            )
            if longer:
                self._try(known[name], longer, "-long")
        self._between([name for name in self.verdicts if known.get(name.removesuffix("-long"), _COLD).warm])
        return self._choice()

    def _best_two(self, known: dict[str, Candidate]) -> list[str]:
        """Return the best candidate, and the best with the other start: a new head needs more steps to show its worth.

        Where all have one start, the best two.
        """
        ranked = sorted(known, key=lambda name: -self.verdicts[name].score)
        others = [name for name in ranked[1:] if known[name].warm != known[ranked[0]].warm]
        return [*ranked[:1], *(others or ranked[1:])[:1]]

    def state_of(self, name: str) -> dict[str, Tensor]:
        """Return the weights of a candidate."""
        if name in self.of:
            tuned, share = self.of[name]
            return between(self.state_of("probe"), self.state_of(tuned), share)
        return read_state_dict(self.directory(name).model)

    def directory(self, name: str) -> Run:
        """Return the run of a candidate; of weights between, that of the fine-tuned one."""
        return Run(self._run.candidates / self.of.get(name, (name, 1.0))[0])

    def _probe(self) -> tuple[bool, float]:
        """Fit and judge the probe; return whether there is one, and the seconds that judging a model takes."""
        name, start = "probe", time.monotonic()
        before = self._state.tried.get(name)
        reason = before.reason if before else ""
        if not before:
            try:
                with self._display.measuring("linear probe") as progress:
                    progress(0.0)
                    write_probe(self._job, self.directory(name))
            except ValueError as error:  # the network has no linear head
                reason = str(error)
        judged = time.monotonic()
        score = None
        if not reason:
            self.verdicts[name] = verdict = self._judge.verdict(self.state_of(name))
            score = verdict.score
        judging = time.monotonic() - judged
        if not before:
            self._state.add(Tried(name, "linear probe", name, {}, 0, time.monotonic() - start, score, reason))
        self._show(self._state.tried[name])
        return not reason, judging

    def _settings(self, candidate: Candidate, name: str, steps: int, validations: int) -> FinetuneConfig:
        path = self._run.candidates / name
        return replace(
            self._config,
            **candidate.settings,
            steps=steps,
            eval_every=self._config.eval_every or -(-steps // validations),
            budget=FinetuneConfig(self._config.data).budget,
            out=str(path),
            report=False,
            resume=(path / "config.json").is_file(),
            overwrite=False,
        )

    def _try(self, candidate: Candidate, steps: int, suffix: str = "") -> bool:
        """Train a candidate and judge it; return whether it may be chosen."""
        name, before = candidate.name + suffix, self._state.tried.get(candidate.name + suffix)
        reason, score = "", None
        start = time.monotonic()
        if before and before.reason:
            return False
        if not before and self._state.seconds > self._seconds:
            reason = "no time left"
        elif not before:
            reason = self._train(candidate, name, steps, suffix)
        if not reason:
            self.verdicts[name] = verdict = self._judge.verdict(self.state_of(name))
            score = verdict.score
            probe = self.verdicts.get("probe")
            if probe and score <= self._judge.guessing < probe.score:
                del self.verdicts[name]
                reason = f"collapsed: no better than guessing ({self._judge.guessing:.1f} %)"
        settings = candidate.settings | {"steps": steps}
        tried = Tried(
            name, candidate.title, candidate.kind.name, settings, steps, time.monotonic() - start, score, reason
        )
        if not before:
            self._state.add(tried)
        self._show(self._state.tried[name])
        return not reason

    def _train(self, candidate: Candidate, name: str, steps: int, suffix: str) -> str:
        """Train a candidate; return why it is dropped, empty if it is not."""
        config = self._settings(candidate, name, steps, _VALIDATIONS[suffix])
        with self._display.measuring(candidate.title) as progress:
            progress(0.0)

            def tell(record: dict[str, Any]) -> None:
                progress(record["step"] / max(steps, 1))
                if self._validated is not None:
                    self._validated(record)

            try:
                train(config, quiet=True, test=False, validated=tell)
            except FloatingPointError as error:
                return str(error).partition(":")[0]
        return ""

    def _pace(self, candidate: Candidate) -> Pace:
        """Measure the time of a run by a short one."""
        steps = _TIMED.get(self._judge.device.type, _TIMED_ELSEWHERE)
        config = replace(self._settings(candidate, "timing", steps, 2), resume=False, overwrite=True)
        with self._display.measuring("measuring the pace") as progress:
            progress(0.0)
            start = time.monotonic()
            cost = train(config, quiet=True, test=False).record["cost"]
            whole = time.monotonic() - start
        step = self._config.batch_size / cost["images_per_second"]
        return Pace(step, max(whole - steps * step, 0.0))

    def _between(self, warm: list[str]) -> None:
        """Judge the weights between the probe and the best candidate that started from it."""
        if not warm:
            return
        tuned = max(warm, key=lambda name: self.verdicts[name].score)
        start = time.monotonic()
        for share in SHARES:
            name = f"{tuned}@{share:g}"
            self.of[name] = (tuned, share)
            self.verdicts[name] = verdict = self._judge.verdict(self.state_of(name))
            title = f"{share:.0%} of the way from the probe to {self._state.tried[tuned].title}"
            seconds, start = time.monotonic() - start, time.monotonic()
            self._state.add(Tried(name, title, Kind.between.name, {"share": share}, 0, seconds, verdict.score))
            self._show(self._state.tried[name])

    def _choice(self) -> Choice:
        scored = [
            Scored(name, Kind[self._state.tried[name].kind], verdict.score) for name, verdict in self.verdicts.items()
        ]
        return choose(scored, lambda a, b: self._judge.error(self.verdicts[a].logits, self.verdicts[b].logits))

    def _show(self, tried: Tried) -> None:
        score = "     -" if tried.validation is None else f"{tried.validation:5.1f} %"
        steps = f", {tried.steps} steps" if tried.steps else ""
        why = f"; dropped, {tried.reason}" if tried.reason else ""
        self._display.note(f"{score}  {tried.title}{steps}, {tried.seconds:.0f} s{why}")


_COLD = Candidate(Kind.vanilla)
