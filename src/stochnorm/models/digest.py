"""The digest of a model's file, which tells a damaged file from a whole one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_digest", "with_digest"]


def with_digest(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the metadata of a file as JSON, with the SHA-256 of its tensors and of the other metadata.

    Args:
        about: The metadata.
        tensors: The tensors of the file by name, on the CPU.
    """
    said = json.loads(json.dumps(about))  # as a reader has it
    return json.dumps({**said, "digest": _digest(said, tensors)})


def check_digest(path: Path, about: Any, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a file is not what was written. A file of an earlier version has no digest and passes.

    Args:
        path: The file, for the message.
        about: Its metadata, as JSON has them; they may be of any kind.
        tensors: Its tensors.
    """
    if not isinstance(about, dict) or "digest" not in about:
        return
    said = {name: value for name, value in about.items() if name != "digest"}
    if about["digest"] != _digest(said, tensors):
        raise ValueError(
            f"{path} is damaged: its tensors are not those that were written (digest); restore the file from a copy, "
            "or train again with --overwrite"
        )


def _digest(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(about).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
