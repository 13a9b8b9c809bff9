"""int8: static quantization by ONNX Runtime, calibrated on training images."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from stochnorm.exporting.formats import label_onnx

__all__ = ["quantize"]


_OPERATIONS = ["Conv", "Gemm", "MatMul", "Add", "GlobalAveragePool", "ReduceMean", "Clip", "Relu"]
"""With the activations: else the output of a convolution has the range from before its ReLU6, which costs digits."""


def quantize(model: Path, about: dict[str, Any], inputs: Iterable[Tensor], path: Path) -> None:
    """Write an ONNX model whose convolutions and matrix products are of 8-bit integers.

    Weights have a scale per channel, activations one per tensor, from the extremes of the calibration images. The head
    is quantized too; the preprocessing in the graph is not.

    Args:
        model: The model in fp32, ONNX.
        about: Metadata of the new file.
        inputs: Calibration images, as the model takes them.
        path: The new file.
    """
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self._left: Iterator[Tensor] = iter(inputs)

        def get_next(self) -> dict[str, Any] | None:
            images = next(self._left, None)
            return None if images is None else {"images": images.numpy()}

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it advises a preparation that the exporter has done
    try:
        with tempfile.TemporaryDirectory() as folder:
            half_way = Path(folder) / "int8.onnx"
            quantization.quantize_static(
                str(model),
                str(half_way),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=_OPERATIONS,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
            proto = onnx.load(str(half_way))
    finally:
        logger.setLevel(level)
    label_onnx(proto, about)
    path.write_bytes(proto.SerializeToString())
