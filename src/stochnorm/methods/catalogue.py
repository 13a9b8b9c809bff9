"""The catalogue of methods, and how a sum such as ``stochnorm+delta`` is made of them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

__all__ = ["METHODS", "Method", "check_method", "concerns"]


@dataclass(frozen=True)
class Method:
    """One way to keep fine-tuning from over-fitting."""

    name: str
    """On the command line."""
    title: str
    acts_on: Literal["nothing", "normalization", "loss"]
    what: str
    """In a line."""
    source: str
    """Paper."""
    options: tuple[str, ...] = ()
    """Of the command line, that belong to it."""


METHODS = {
    method.name: method
    for method in (
        Method(
            "vanilla",
            "plain fine-tuning",
            "nothing",
            "BatchNorm, cross-entropy, weight decay: the baseline",
            "",
        ),
        Method(
            "stochnorm",
            "Stochastic Normalization",
            "normalization",
            "each channel takes batch or moving statistics, by chance, at each step",
            "Kou et al., NeurIPS 2020",
            ("--p", "--p-end", "--p-schedule", "--norm-layers"),
        ),
        Method(
            "bin",
            "Batch-Instance Normalization",
            "normalization",
            "learns for each channel how much to normalize by the batch and by the image",
            "Nam & Kim, NeurIPS 2018",
            ("--norm-layers",),
        ),
        Method(
            "frozen",
            "frozen normalization",
            "normalization",
            "keeps the inherited statistics, scale and shift, or both",
            "common practice",
            ("--freeze", "--norm-layers"),
        ),
        Method(
            "l2sp",
            "L2-SP",
            "loss",
            "holds the weights near the pre-trained ones",
            "Li et al., ICML 2018",
            ("--l2sp.alpha", "--l2sp.beta", "--l2sp.scope"),
        ),
        Method(
            "delta",
            "DELTA",
            "loss",
            "holds the feature maps near the pre-trained network's, by channel attention",
            "Li et al., ICLR 2019",
            ("--delta.alpha", "--delta.beta", "--delta.attention", "--delta.attention-images", "--delta.layers"),
        ),
        Method(
            "bss",
            "Batch Spectral Shrinkage",
            "loss",
            "shrinks the smallest singular values of a batch's features",
            "Chen et al., NeurIPS 2019",
            ("--bss.eta", "--bss.k"),
        ),
    )
}


def check_method(method: str) -> tuple[str, ...]:
    """The names in a sum of methods, in the catalogue's order, without ``vanilla`` beside others.

    Raises:
        ValueError: An unknown name, a name twice, or two methods that change the normalization.

    Example:
        >>> check_method("delta+stochnorm")
        ('stochnorm', 'delta')
    """
    names = [name.strip().lower() for name in method.split("+")]
    for name in names:
        if name not in METHODS:
            raise ValueError(
                f"unknown method {name!r} in {method!r}{_hint(name)}: methods are {', '.join(METHODS)}, and sums of "
                "them joined by +"
            )
        if names.count(name) > 1:
            raise ValueError(f"method {name} stands twice in {method!r}")
    changing = [name for name in names if METHODS[name].acts_on == "normalization"]
    if len(changing) > 1:
        raise ValueError(f"{' and '.join(changing)} both change the normalization layers; choose one of them")
    return tuple(name for name in METHODS if name in names and (name != "vanilla" or len(names) == 1))


def _hint(name: str) -> str:
    near = difflib.get_close_matches(name, METHODS, n=1)
    meant = {"batchnorm": "vanilla", "bn": "vanilla", "baseline": "vanilla"}.get(name, near[0] if near else "")
    return f", did you mean {meant}?" if meant else ""


def concerns(setting: str, method: str) -> bool:
    """Whether a setting changes what a method does: those of other methods do not.

    Args:
        setting: As in ``config.json``, such as ``l2sp.alpha`` or all of ``l2sp``.
        method: A method or a sum of them.

    Example:
        >>> concerns("l2sp.alpha", "stochnorm+l2sp"), concerns("l2sp.alpha", "vanilla"), concerns("lr", "vanilla")
        (True, False, True)
    """
    option = f"--{setting.replace('_', '-')}"
    owners = {name for name, method in METHODS.items() for own in method.options if f"{own}.".startswith(f"{option}.")}
    return not owners or not owners.isdisjoint(method.split("+"))
