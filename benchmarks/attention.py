"""DELTA's channel attention against one whole forward pass a channel, side by side on a slice of the channels.

    python benchmarks/attention.py                  # ResNet-50, its four stages, 224 px: 1 to 2 minutes on one thread
    python benchmarks/attention.py --backbone vgg16_bn --device cuda

Both set the same channels of the same images to zero, and must give the same loss increases. They take turns; seconds
are medians, on a CPU of its own time, so that other programs' load does not count in. From them, and from what cutting
the network costs a batch, follows the cost of all channels. The channels that are zero for an image as they are, which
the tail need not run for, are counted in the table but not left out of the seconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from stochnorm.regularizers.attention import _batch_increases, _pairs, image_losses
from stochnorm.stages import stage_names
from stochnorm.tail import Tail


def one_pass_a_channel(model: nn.Module, layer: str, images: Tensor, targets: Tensor, channels: list[int]) -> Tensor:
    """The obvious way."""
    plain = image_losses(model(images), targets).mean()
    increases = []
    for channel in channels:

        def mask(module: nn.Module, inputs: object, output: Tensor, channel: int = channel) -> Tensor:
            output = output.clone()
            output[:, channel] = 0
            return output

        with model.get_submodule(layer).register_forward_hook(mask):
            increases.append(image_losses(model(images), targets).mean() - plain)
    return torch.stack(increases)


def side_by_side(functions: list[Callable[[], object]], rounds: int, device: str) -> list[float]:
    """Median seconds of each function, after one round to warm up."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds + 1):
        for function, record in zip(functions, seconds, strict=True):
            if device == "cpu":
                start = time.process_time()
                function()
                record.append(time.process_time() - start)
            else:
                torch.cuda.synchronize()
                start = time.perf_counter()
                function()
                torch.cuda.synchronize()
                record.append(time.perf_counter() - start)
    return [statistics.median(record[1:]) for record in seconds]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50", help="of torchvision")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--channels", type=int, default=2, help="of each layer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contiguous", action="store_true", help="instead of channels_last")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    torch.manual_seed(0)
    layout = torch.contiguous_format if args.contiguous else torch.channels_last
    model = torchvision.models.get_model(args.backbone).eval().to(args.device, memory_format=layout)
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size, device=args.device)
    images = images.contiguous(memory_format=layout)
    targets = torch.randint(1000, (args.batch_size,), device=args.device)
    table = Table(
        title=f"{args.backbone}, {args.batch_size} images of {args.image_size} px, {layout}, {args.device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}: seconds"
    )
    for name in ("layer", "channels", "not zero %", "pass a channel", "tail a channel", "cut", "ratio", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    obvious_total = total = 0.0
    channels_total = 0
    for layer in stage_names(model, image_size=args.image_size):
        tail = Tail(model, layer, images)
        c = tail.maps.shape[1]
        channels = torch.linspace(0, c - 1, args.channels).long().tolist()
        alive = _pairs(tail.maps)
        every = torch.cartesian_prod(torch.arange(args.batch_size), torch.tensor(channels)).to(args.device)
        obvious = partial(one_pass_a_channel, model, layer, images, targets, channels)
        ours = partial(_batch_increases, tail, every, targets, image_losses)
        difference = (obvious() - ours()[channels]).abs().max()
        seconds = side_by_side([obvious, ours, partial(Tail, model, layer, images)], args.rounds, args.device)
        a_pass, a_tail, cut = seconds[0] / (len(channels) + 1), seconds[1] / len(channels), seconds[2]
        obvious_total += c * a_pass
        total += cut + c * a_tail
        channels_total += c
        table.add_row(
            layer,
            str(c),
            f"{100 * len(alive) / (c * args.batch_size):.0f}",
            f"{a_pass:.3f}",
            f"{a_tail:.4f}",
            f"{cut:.2f}",
            f"{(cut + c * a_tail) / (c * a_pass):.3f}",
            f"{difference:.0e}",
        )
    table.add_section()
    table.add_row(
        "all", str(channels_total), "", f"{obvious_total:.0f}", f"{total:.0f}", "", f"{total / obvious_total:.3f}"
    )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
