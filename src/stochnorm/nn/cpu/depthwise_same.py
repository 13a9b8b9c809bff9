"""The layer for timm's convolution with TensorFlow's padding; imported only if a model has such a layer."""

from __future__ import annotations

from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor

from stochnorm.nn.cpu.depthwise import DepthwiseConv2d, _Geometry

__all__ = ["DepthwiseConv2dSame"]


class DepthwiseConv2dSame(DepthwiseConv2d, Conv2dSame):
    """timm's `Conv2dSame` with a compiled kernel; the padding depends on the input's size and makes no copy."""

    _accelerates = Conv2dSame

    def _geometry(self, input: Tensor) -> _Geometry:
        stride = self.stride[0]
        pads = [
            max((-(-size // stride) - 1) * stride + side - size, 0)
            for size, side in zip(input.shape[2:], self.kernel_size, strict=True)
        ]
        return self._padded(input, (pads[0] // 2, pads[1] // 2), (pads[0], pads[1]))
