"""Channel attention that was computed once is read from a file afterwards, if nothing it depends on has changed."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stochnorm.files import atomic_path

__all__ = ["attention_key", "cached_attention"]

_VERSION = 2  # to be raised when the same settings give other weights


def attention_key(model: nn.Module, data: Iterable[Tensor | str], settings: Mapping[str, Any]) -> str:
    """SHA-256 of all that channel attention depends on, in hexadecimal.

    Args:
        model: The pre-trained network with its new head. Every parameter and buffer counts, and how the model is
            printed, since the same weights do something else with another padding, epsilon or activation.
        data: The training images and labels in their order: tensors, or what stands for them, as ``path size mtime``.
        settings: Layers, epochs, learning rate, batches, seed, ...: whatever JSON can write.
    """
    digest = hashlib.sha256(json.dumps([_VERSION, dict(settings)], sort_keys=True).encode())
    _hash(digest, [repr(model)])
    _hash(digest, [item for pair in (*model.named_parameters(), *model.named_buffers()) for item in pair])
    digest.update(b"data")
    _hash(digest, data)
    return digest.hexdigest()


def cached_attention(directory: Path, key: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What the file of a key holds, else what ``compute`` gives, which is written to the file.

    A file of another key, and one that is damaged in any bit, is not read but computed anew. Processes that want the
    same wait for the first of them. Where the file cannot be written, a warning says so.

    Args:
        directory: Made if need be; such as ``stochnorm.files.cache_directory("attention")``.
        key: Of :func:`attention_key`.
        compute: As ``lambda: channel_attention(...)``.

    Returns:
        Channel weights by layer, on the CPU.
    """
    path = directory / f"{key}.safetensors"
    with ExitStack() as stack:
        with suppress(OSError):  # said when the file is written
            directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(directory / f".{key}.lock"))
        weights = _read(path, key)
        if weights is None:
            weights = {layer: weight.cpu().contiguous() for layer, weight in compute().items()}
            try:
                with atomic_path(path) as temporary:
                    save_file(weights, temporary, metadata={"key": key, "content": _content(weights)})
            except (OSError, SafetensorError) as error:
                warnings.warn(
                    f"channel attention is not kept for the next run: {error}; set XDG_CACHE_HOME to a directory that "
                    "can be written",
                    stacklevel=2,
                )
    return weights


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {layer: file.get_tensor(layer) for layer in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, SafetensorError):
        return None
    return weights if metadata == {"key": key, "content": _content(weights)} else None


def _content(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    _hash(digest, [item for layer in sorted(weights) for item in (layer, weights[layer])])
    return digest.hexdigest()


def _hash(digest: Any, items: Iterable[Tensor | str]) -> None:
    """Each item with its kind and length, so that no two lists of items are one stream of bytes."""
    for item in items:
        if isinstance(item, Tensor):
            content = item.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
            digest.update(f"tensor {item.dtype} {tuple(item.shape)} ".encode())
        else:
            content = memoryview(item.encode())
            digest.update(f"text {len(content)} ".encode())
        digest.update(content)
