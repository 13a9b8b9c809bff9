"""Writers of the formats: one function each, from the network to a file."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stochnorm.exporting.about import KEY, as_texts
from stochnorm.exporting.network import Deployed
from stochnorm.outputs import Kind

__all__ = ["FORMATS", "Format", "example", "needs_onnx"]

_ZIP = (b"PK\x03\x04",)


class Format(NamedTuple):
    """A format of one file."""

    suffix: str
    kind: Kind
    precisions: tuple[str, ...]
    raw: bool
    """Whether the preprocessing can be in the graph."""
    write: Callable[[Deployed, dict[str, Any], Path], None]


def needs_onnx() -> None:
    """Raise an error unless the packages for ONNX are installed.

    Raises:
        ModuleNotFoundError: One is not.
    """
    if missing := [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]:
        raise ModuleNotFoundError(f"format onnx needs {missing[0]}: pip install 'stochnorm[export]'")


def example(model: Deployed, about: dict[str, Any]) -> Tensor:
    """Return an input that the graph is recorded with; its batch is no special number."""
    if model.squares is not None:
        return torch.zeros(2, 72, 80, 3, dtype=torch.uint8)
    return torch.zeros(2, *about["input"]["shape"][1:])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters say to their developers from the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _program(model: Deployed, about: dict[str, Any]) -> torch.export.ExportedProgram:
    """Record the graph; sizes of the batch, and of raw images, stay open."""
    free = {i: torch.export.Dim.DYNAMIC for i, size in enumerate(about["input"]["shape"]) if isinstance(size, str)}
    return torch.export.export(model, (example(model, about),), dynamic_shapes={"images": free})


def _write_onnx(model: Deployed, about: dict[str, Any], path: Path) -> None:
    with _quiet():
        program: Any = torch.onnx.export(
            _program(model, about),
            (example(model, about),),
            dynamo=True,
            input_names=["images"],
            output_names=["probabilities"],
            verbose=False,
        )
    proto = program.model_proto
    label_onnx(proto, about)
    path.write_bytes(proto.SerializeToString())


def label_onnx(proto: Any, about: dict[str, Any]) -> None:
    """Put the metadata, and the names of the open sizes, into an ONNX model; say whether BatchNorm is left."""
    plain = any(node.op_type == "BatchNormalization" for node in proto.graph.node)  # PyTorch's exporter folds most
    about["batch_norm"] = "plain" if plain else "folded"
    del proto.metadata_props[:]
    for key, text in as_texts(about).items():
        proto.metadata_props.add(key=key, value=text)
    proto.producer_name, proto.producer_version = "stochnorm", about["made_by"].partition(" ")[2]
    for sizes, value in (
        (about["input"]["shape"], proto.graph.input[0]),
        (["batch", len(about["classes"])], proto.graph.output[0]),
    ):
        for size, dimension in zip(sizes, value.type.tensor_type.shape.dim, strict=True):
            if isinstance(size, str):
                dimension.dim_param = size
    del proto.graph.value_info[:]  # they have the recorder's names of the open sizes


def _write_torch(model: Deployed, about: dict[str, Any], path: Path) -> None:
    buffer = io.BytesIO()  # a path would be the name of a folder in the file
    with _quiet():
        torch.export.save(_program(model, about), buffer, extra_files={f"{KEY}.json": json.dumps(about)})
    path.write_bytes(buffer.getvalue())


def _write_torchscript(model: Deployed, about: dict[str, Any], path: Path) -> None:
    buffer = io.BytesIO()
    with _quiet(), torch.no_grad():
        traced: Any = torch.jit.trace(model, (example(model, about),), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, buffer, _extra_files={f"{KEY}.json": json.dumps(about)})
    path.write_bytes(buffer.getvalue())


def _write_safetensors(model: Deployed, about: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save

    tensors = {key: value.contiguous() for key, value in model.network.state_dict().items()}
    path.write_bytes(save(tensors, metadata={KEY: json.dumps(about), "format": "pt"}))


FORMATS = {
    "onnx": Format(".onnx", Kind("ONNX", (b"\x08",), b"stochnorm"), ("fp32", "fp16", "int8"), True, _write_onnx),
    "torch": Format(".pt2", Kind("PyTorch", _ZIP, KEY.encode()), ("fp32", "fp16"), True, _write_torch),
    "torchscript": Format(
        ".torchscript", Kind("TorchScript", _ZIP, KEY.encode()), ("fp32", "fp16"), False, _write_torchscript
    ),
    "safetensors": Format(
        ".safetensors", Kind("safetensors", (b"",), f'"{KEY}"'.encode()), ("fp32", "fp16"), False, _write_safetensors
    ),
}
