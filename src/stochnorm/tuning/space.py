"""The settings that a search chooses, and their bounds: those of the run and of the methods in its sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from stochnorm.methods.catalogue import METHODS, methods_of
from stochnorm.methods.method import Method
from stochnorm.methods.ranges import Search, noted
from stochnorm.runs.config import FinetuneConfig, flat
from stochnorm.runs.settings import RunSettings

if TYPE_CHECKING:
    import optuna

__all__ = ["search_space", "searched", "strength_space", "strengths"]


def searched(config: FinetuneConfig) -> dict[str, float]:
    """Return the value of every setting that some search chooses, by name, whether or not the method uses it."""
    values = flat(asdict(config))
    return {name: values[name] for name, _ in _settings(list(METHODS.values()))}


def search_space(trial: optuna.Trial, config: FinetuneConfig) -> FinetuneConfig:
    """Return the settings of a trial: learning rate, and p or the strength of each method in the sum.

    The bounds are written at the settings (`Search` in `stochnorm.runs.config` and `stochnorm.methods`). They include
    the published values: lr 1e-3 and 1e-2, p 0.5, L2-SP 0.01 and 0.1, BSS 1e-3; DELTA 0.01 (see its card). The value in
    `config` extends them; p is a multiple of 0.1 if that one is.

    Raises:
        ValueError: A value in `config` is not positive, where the scale is logarithmic.
    """
    return _chosen(trial, config, _settings(methods_of(config.method)))


def strength_space(trial: optuna.Trial, config: FinetuneConfig) -> FinetuneConfig:
    """Return the settings of a trial that searches the strengths of the methods alone: no learning rate, no p."""
    return _chosen(trial, config, strengths(config.method))


def strengths(method: str) -> list[tuple[str, Search]]:
    """Return the strengths of the methods in a sum, and their bounds; none for methods without terms of the loss."""
    return [(name, search) for name, search in _settings(methods_of(method)) if "." in name]


def _chosen(trial: optuna.Trial, config: FinetuneConfig, settings: Iterable[tuple[str, Search]]) -> FinetuneConfig:
    given = flat(asdict(config))
    for name, search in settings:
        config = _put(config, name, _suggest(trial, name, given[name], search))
    return config


def _settings(methods: list[Method]) -> Iterator[tuple[str, Search]]:
    yield from noted(RunSettings, Search)
    for method in methods:
        yield from method.searched.items()


def _suggest(trial: optuna.Trial, name: str, given: float, search: Search) -> float:
    low, high = min(search.low, given), max(search.high, given)
    if search.log:
        if not given > 0:
            raise ValueError(f"{name} must be positive, since its search is on a logarithmic scale, got {given}")
        return trial.suggest_float(name, low, high, log=True)
    step = search.step if search.step and _is_multiple(given, search.step) else None
    return round(trial.suggest_float(name, low, high, step=step), 12)  # 0.3, not 0.30000000000000004


def _is_multiple(value: float, step: float) -> bool:
    return abs(value / step - round(value / step)) < 1e-9


def _put(config: FinetuneConfig, name: str, value: Any) -> FinetuneConfig:
    """Return a copy of the settings with another value of one of them."""
    group, _, own = name.rpartition(".")
    return replace(config, **{group: replace(getattr(config, group), **{own: value})} if group else {own: value})
