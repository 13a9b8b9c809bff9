"""Choosing layers by a pattern of their names."""

from __future__ import annotations

import re

from stochnorm.nn.surgery import Where

__all__ = ["name_matches"]


def name_matches(pattern: str) -> Where:
    r"""A ``where`` for the conversions: layers in whose name a regular expression is found.

    Names are dotted, as in ``model.named_modules()``: ``layer3.0.bn1``. The expression may match anywhere
    (:func:`re.search`), so ``layer[34]`` is all of two stages and ``^bn1$`` one layer.

    Args:
        pattern: A regular expression.

    Returns:
        A function of name and module. A pattern that finds no layer is an error of the conversion, which lists some.

    Raises:
        ValueError: The pattern is empty or no regular expression.

    Example:
        >>> from torch import nn
        >>> where = name_matches(r"layer[34]")
        >>> [where(name, nn.BatchNorm2d(3)) for name in ("bn1", "layer1.0.bn1", "layer4.2.bn3")]
        [False, False, True]
    """
    if not pattern:
        raise ValueError("the pattern of layer names is empty; give a regular expression such as 'layer[34]'")
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"the pattern of layer names {pattern!r} is no regular expression ({error}); for example, 'layer[34]' "
            "finds layer3.0.bn1, and '.*' everything"
        ) from error
    return lambda name, module: expression.search(name) is not None
