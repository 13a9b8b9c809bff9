"""A training step of EfficientNet-Lite0 with PyTorch's depthwise convolutions and with the compiled kernel.

    python benchmarks/depthwise.py
    python benchmarks/depthwise.py --image-size 224 --batch-size 16 --method stochnorm

In one process, in turns, in random order; ratios of medians. Then each kind of depthwise layer alone, forward and
backward, in bfloat16 where the job computes in it.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import torch
from torch import nn

from layer import forward_backward
from measure import Outcome, arguments, side_by_side
from stochnorm.nn.cpu.accelerate import accelerate
from stochnorm.nn.cpu.depthwise import DepthwiseConv2d
from stochnorm.runs.hardware import launch, precision_of
from training_step import BUNDLED, training


def depthwise_layers(model: nn.Module, images: torch.Tensor) -> Counter[tuple[tuple[int, ...], int, int]]:
    """The input shapes, kernels and strides of the depthwise layers, and how many layers have each."""
    found: Counter[tuple[tuple[int, ...], int, int]] = Counter()

    def note(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        found.update([(tuple(inputs[0].shape), layer.kernel_size[0], layer.stride[0])])

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, DepthwiseConv2d)]
    with torch.no_grad():
        model(images.float())
    for hook in hooks:
        hook.remove()
    return found


def main() -> None:
    parser = arguments(__doc__, "depthwise")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--method", default="vanilla")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    size = {"batch_size": args.batch_size, "image_size": args.image_size}
    stock, ours = (training(BUNDLED, args.method, depthwise=enabled, **size) for enabled in (False, True))
    layers = depthwise_layers(ours.classifier.model, ours.images)
    if not layers:
        raise SystemExit("the kernel was not built: python -m pip install -e .")
    rows = [("training step", 1, *side_by_side([stock.step, ours.step], args.rounds))]
    dtype = torch.bfloat16 if "bf16" in precision_of(launch(model=ours.classifier.model)) else torch.float32
    for (shape, kernel, stride), count in layers.items():
        x = torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
        pair = [
            nn.Conv2d(shape[1], shape[1], kernel, stride, kernel // 2, groups=shape[1], bias=False).to(dtype)
            for _ in range(2)
        ]
        accelerate(pair[1])
        grad = torch.randn_like(pair[0](x)).contiguous(memory_format=torch.channels_last)
        timings = side_by_side([partial(forward_backward, layer, x, grad) for layer in pair], args.rounds, seconds=0.3)
        rows.append((f"{' x '.join(map(str, shape))}, {kernel} x {kernel}, stride {stride}", count, *timings))

    outcome = Outcome(
        f"Depthwise convolutions, EfficientNet-Lite0, batch {args.batch_size}, {args.image_size} px",
        ["", "layers", "PyTorch ms", "kernel ms", "PyTorch / kernel"],
        "A training step, and each kind of layer forward and backward, with PyTorch's depthwise convolutions and with "
        "`nn/cpu/depthwise.cpp`.",
    )
    for name, count, theirs, own in rows:
        row = [name, str(count), f"{theirs.median * 1e3:.2f}", f"{own.median * 1e3:.2f}", f"{theirs.over(own):.1f}"]
        outcome.rows.append(row)
    outcome.write(args.out)


if __name__ == "__main__":
    main()
