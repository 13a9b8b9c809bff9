"""All methods, and sums of them such as `stochnorm+delta`. A new method has its import and its line here."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field

from stochnorm.methods.auto import Auto, AutoConfig
from stochnorm.methods.batch_instance import BatchInstance
from stochnorm.methods.bss import BSS, BSSConfig
from stochnorm.methods.cotuning import CoTuning, CoTuningConfig
from stochnorm.methods.delta import DELTA, DELTAConfig
from stochnorm.methods.frozen import Frozen, FrozenConfig
from stochnorm.methods.l2sp import L2SP, L2SPConfig
from stochnorm.methods.lwf import LwF, LwFConfig
from stochnorm.methods.method import Method, NormLayers
from stochnorm.methods.probe import Probe, ProbeConfig
from stochnorm.methods.stochnorm import StochNorm, StochNormConfig
from stochnorm.methods.vanilla import Vanilla

__all__ = ["METHODS", "MethodSettings", "check_method", "concerns", "methods_of", "trains"]

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Auto(),
        Vanilla(),
        StochNorm(),
        BatchInstance(),
        Frozen(),
        L2SP(),
        DELTA(),
        BSS(),
        LwF(),
        CoTuning(),
        Probe(),
    )
}


@dataclass(frozen=True)
class MethodSettings(FrozenConfig, NormLayers, StochNormConfig, AutoConfig):
    """The settings of all methods, as fields of a run's settings: those of a group in a field of the method's name."""

    l2sp: L2SPConfig = field(default_factory=L2SPConfig)
    delta: DELTAConfig = field(default_factory=DELTAConfig)
    bss: BSSConfig = field(default_factory=BSSConfig)
    lwf: LwFConfig = field(default_factory=LwFConfig)
    cotuning: CoTuningConfig = field(default_factory=CoTuningConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)


_ALIASES = {"batchnorm": "vanilla", "bn": "vanilla", "baseline": "vanilla"}


def check_method(method: str) -> tuple[str, ...]:
    """Return the names in a sum of methods, in the catalogue's order, without `vanilla` beside others.

    Raises:
        ValueError: An unknown name, a duplicate, or two methods that change the normalization layers.

    Example:
        >>> check_method("delta+stochnorm")
        ('stochnorm', 'delta')
    """
    names = [name.strip().lower() for name in method.split("+")]
    for name in names:
        if name not in METHODS:
            raise ValueError(
                f"unknown method {name!r} in {method!r}{_hint(name)}; methods are {', '.join(METHODS)}, and sums of "
                "them joined by +"
            )
        if names.count(name) > 1:
            raise ValueError(f"duplicate method {name} in {method!r}; list each method once")
    alone = [name for name in names if METHODS[name].alone]
    if alone and len(names) > 1:
        raise ValueError(f"{alone[0]} cannot be combined with other methods, got {method!r}; choose {alone[0]} alone")
    changing = [name for name in names if METHODS[name].acts_on == "normalization"]
    if len(changing) > 1:
        raise ValueError(f"{' and '.join(changing)} both change the normalization layers; choose one of them")
    return tuple(name for name in METHODS if name in names and (name != "vanilla" or len(names) == 1))


def methods_of(method: str) -> list[Method]:
    """Return the methods in a sum; errors as for [stochnorm.methods.catalogue.check_method][]."""
    return [METHODS[name] for name in check_method(method)]


def trains(method: str) -> bool:
    """Return whether a method makes steps of training; the linear probe does not."""
    return all(each.trains for each in methods_of(method))


def _hint(name: str) -> str:
    near = difflib.get_close_matches(name, METHODS, n=1)
    meant = _ALIASES.get(name, near[0] if near else "")
    return f", did you mean {meant}?" if meant else ""


def concerns(setting: str, method: str) -> bool:
    """Return whether a setting changes what a method does: those of other methods do not, nor those of a training
    that there is not.

    Args:
        setting: A name as in `config.json`, such as `l2sp.alpha` or all of `l2sp`.
        method: A method or a sum of them.

    Example:
        >>> concerns("l2sp.alpha", "stochnorm+l2sp"), concerns("l2sp.alpha", "vanilla"), concerns("lr", "vanilla")
        (True, False, True)
    """
    known = [METHODS[name] for name in method.split("+") if name in METHODS]  # records may be of other versions
    if any(setting in each.without for each in known):
        return False
    if setting.split(".")[0] == "probe":
        return True  # every method may start at the probe
    owners = {m.name for m in METHODS.values() if any(f"{own}.".startswith(f"{setting}.") for own in m.settings)}
    return not owners or not owners.isdisjoint(method.split("+"))
