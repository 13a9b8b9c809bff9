"""Cache channel attention in a file and read it as long as nothing it depends on has changed."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from stochnorm.files import atomic_path, locked, private_directory

__all__ = ["attention_key", "cached_attention"]

_VERSION = 2  # increase it when the same settings give other weights


def attention_key(model: nn.Module, data: Iterable[Tensor | str], settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything that channel attention depends on, in hexadecimal.

    Args:
        model: The pre-trained network with its new head. The key depends on every parameter and buffer, and on the
            printed model, because padding, epsilon and activation change the result, too.
        data: The training images and labels in order: tensors, or strings that identify them, such as
            `path size mtime`.
        settings: Layers, epochs, learning rate, batches, seed, ..., in types that JSON can write.
    """
    digest = hashlib.sha256(json.dumps([_VERSION, dict(settings)], sort_keys=True).encode())
    _hash(digest, [repr(model)])
    _hash(digest, [item for pair in (*model.named_parameters(), *model.named_buffers()) for item in pair])
    digest.update(b"data")
    _hash(digest, data)
    return digest.hexdigest()


def cached_attention(directory: Path, key: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the cached weights of a key; if there are none, compute them and write the file.

    A file of another key or with any damaged bit is ignored and computed again. Processes that need the same key wait
    for the first of them. If the file cannot be written, there is a warning.

    Args:
        directory: Cache directory, made if needed, such as `stochnorm.files.cache_directory("attention")`.
        key: Key from [stochnorm.regularizers.attention_cache.attention_key][].
        compute: Function that computes the weights, such as `lambda: channel_attention(...)`.

    Returns:
        Channel weights by layer, on the CPU.
    """
    path = directory / f"{key}.safetensors"
    with ExitStack() as stack:
        with suppress(OSError):  # writing the file reports it
            private_directory(directory)
            stack.enter_context(locked(directory / f".{key}.lock"))
        weights = _read(path, key)
        if weights is None:
            weights = {layer: weight.cpu().contiguous() for layer, weight in compute().items()}
            try:
                with atomic_path(path) as temporary:
                    temporary.write_bytes(save(weights, metadata={"key": key, "content": _content(weights)}))
            except (OSError, SafetensorError) as error:
                warnings.warn(
                    f"channel attention is not cached for the next run: {error}; set XDG_CACHE_HOME to a writable "
                    "directory",
                    stacklevel=2,
                )
    return weights


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {layer: file.get_tensor(layer) for layer in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError):
        return None
    return weights if metadata == {"key": key, "content": _content(weights)} else None


def _content(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    _hash(digest, [item for layer in sorted(weights) for item in (layer, weights[layer])])
    return digest.hexdigest()


def _hash(digest: Any, items: Iterable[Tensor | str]) -> None:
    """Hash each item with its kind and length, so that different lists never give the same bytes."""
    for item in items:
        if isinstance(item, Tensor):
            content = item.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
            digest.update(f"tensor {item.dtype} {tuple(item.shape)} ".encode())
        else:
            content = memoryview(item.encode())
            digest.update(f"text {len(content)} ".encode())
        digest.update(content)
