"""Run an exported file as a program without stochnorm would."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from stochnorm.exporting.network import Deployed

__all__ = ["latency", "opened"]

Model = Callable[[Tensor], Tensor]


def opened(path: Path, format: str, model: Deployed) -> Model:
    """Return a function from inputs to probabilities, computed by the file.

    Args:
        path: The file or folder.
        format: Its format.
        model: The network that it was made from. Files of weights are put into a copy of it.
    """
    if format == "onnx":
        return _onnx(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript says at each call that it is deprecated
        if format == "torch":
            return torch.export.load(path).module()
        if format == "torchscript":
            loaded: Model = torch.jit.load(path)  # type: ignore[no-untyped-call]
            return loaded
    filled = copy.deepcopy(model)
    if format == "timm":
        import timm

        network: nn.Module = timm.create_model(f"local-dir:{path.resolve()}", pretrained=True).eval()
        filled.network = network.to(next(model.parameters()).dtype)  # timm computes in float32 until told otherwise
        return filled
    from safetensors.torch import load_file

    filled.network.load_state_dict(load_file(path))
    return filled


def _onnx(path: Path) -> Model:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return run


@torch.no_grad()
def latency(model: Model, image: Tensor, *, seconds: float = 1.0) -> float:
    """Return the median time of one image in milliseconds, after a few calls to warm up."""
    for _ in range(3):
        model(image)
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < until and len(times) < 200):
        start = time.perf_counter()
        model(image)
        times.append(time.perf_counter() - start)
    return 1000 * median(times)
