"""Sets of weights in one file: a training script's checkpoint has one, an average of it, a teacher."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from torch import Tensor

from stochnorm.text import some

__all__ = ["choose_set"]

_PLAIN = ("state_dict", "model_state_dict", "model")
"""Keys of the weights that were trained, first to last; an average (EMA) or a teacher has another."""
_OTHERS = ("optim", "sched", "scaler")
"""Parts of the keys of what is no network."""
_DEPTH = 3


def choose_set(content: Any, part: str, source: str) -> Any:
    """Return the state dict in the content of a file.

    Without a part: the only set of weights; of several the one under `state_dict`, `model_state_dict` or `model`, with
    a warning that names the others. A set with less than half the tensors of the largest is none of a network.

    Args:
        content: The content: a state dict, or a dict of them.
        part: Name of a set, such as `state_dict_ema`, or of a network in it, such as `encoder_q`; empty to choose.
        source: The file, for the messages.

    Raises:
        ValueError: There is no such part, or a choice between sets is the reader's.
    """
    sets = dict(_sets(content))
    most = max(map(len, sets.values()), default=0)
    sets = {name: tensors for name, tensors in sets.items() if 2 * len(tensors) >= most}
    if part in sets:
        return sets[part]
    names = [name for name in sets if not part or name.startswith(f"{part}.")]
    plain = [name for first in _PLAIN for name in names if f"{name}.".startswith(f"{first}.")]
    if len(names) == 1 or plain or "" in names:
        taken = "" if "" in names else [*plain, *names][0]
        if others := [name for name in names if name != taken]:
            _tell(
                f"{source}: took the weights {taken or 'at its top'}, and not {some(others)} beside them; for others: "
                f"--weights '{source}#{others[0]}'"
            )
        return sets[taken]
    if names:
        raise ValueError(
            f"{source}: holds {len(names)} sets of weights, {some(names)}; choose one with --weights "
            f"'{source}#{names[0]}'"
        )
    return _network(sets, part, source) if part else content


def _network(sets: Mapping[str, Mapping[str, Any]], part: str, source: str) -> dict[str, Any]:
    """Return the tensors whose names begin with a part, without it; of several sets with some, a plain one's."""
    for name in sorted(sets, key=lambda name: name.partition(".")[0] not in _PLAIN):
        tensors = {key.removeprefix(f"{part}."): x for key, x in sets[name].items() if key.startswith(f"{part}.")}
        if tensors:
            return tensors
    has = f"; it has {some(list(filter(None, sets)))}" if any(sets) else ""
    raise ValueError(f"{source}: has no weights {part!r}{has}; remove #{part}, or choose another")


def _sets(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each mapping with tensors of its own, by its keys from the outside."""
    if not isinstance(content, Mapping):
        return
    if any(isinstance(value, Tensor) for value in content.values()):
        yield name, content
    for key, value in content.items():
        if isinstance(key, str) and depth < _DEPTH and not any(other in key.lower() for other in _OTHERS):
            yield from _sets(value, f"{name}.{key}" if name else key, depth + 1)


@cache
def _tell(text: str) -> None:
    """Warn, once a process, although a run may build its network several times."""
    warnings.warn(text, stacklevel=5)
