"""DELTA's channel attention against one whole forward pass a channel, side by side on a slice of the channels.

    python benchmarks/attention.py                  # ResNet-50, its four stages, 224 px: a minute
    python benchmarks/attention.py --backbone vgg16_bn --device cuda

Both set the same channels of the same images to zero, and must give the same loss increases. They take turns in random
order; seconds are medians. From them, and from what cutting the network costs a batch, follows the cost of all
channels. The tail's network has its BatchNorm folded, as in the job. The channels that are zero for an image as they
are, which the tail need not run for, are counted in the table but not left out of the seconds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from measure import Outcome, arguments, at_least, side_by_side
from stochnorm.nn.fold import fold_batch_norm
from stochnorm.nn.hooks.stages import stage_names
from stochnorm.nn.hooks.tail import Tail
from stochnorm.regularizers.attention import _batch_increases, _pairs, image_losses


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


def work(function: Callable[[], object]) -> int:
    """Multiplications and additions of matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


@torch.inference_mode()
def main() -> None:
    parser = arguments(__doc__, "attention")
    parser.add_argument("--backbone", default="resnet50", help="of torchvision")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--channels", type=int, default=4, help="of each layer")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--contiguous", action="store_true", help="instead of channels_last")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    torch.manual_seed(0)
    layout = torch.contiguous_format if args.contiguous else torch.channels_last
    model = torchvision.models.get_model(args.backbone).eval().to(args.device, memory_format=layout)
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size, device=args.device)
    images = images.contiguous(memory_format=layout)
    targets = torch.randint(1000, (args.batch_size,), device=args.device)
    outcome = Outcome(
        f"DELTA's channel attention, {args.backbone}, {args.batch_size} images of {args.image_size} px",
        ["layer", "channels", "not zero %", "pass a channel, s", "tail a channel, s", "cut, s", "faster", "less work",
         "difference"],
        "Seconds a channel for one whole forward pass each, and by the network's tail alone. *cut*: what preparing the "
        "tail costs a batch. *faster*: over all channels of the layer. *less work*: how many times as many "
        "multiplications the passes take as the tails, which any exact way has to compute (but for the first "
        "convolution's, which is linear). *difference*: of the loss increases.",
    )  # fmt: skip
    folded = copy.deepcopy(model)
    layers = stage_names(model, image_size=args.image_size)
    fold_batch_norm(folded, keep=layers)
    a_pass_works = work(lambda: model(images))
    obvious_total = total = 0.0
    channels_total = works = 0
    for layer in layers:
        tail = Tail(folded, layer, images)
        c = tail.maps.shape[1]
        channels = torch.linspace(0, c - 1, args.channels).long().tolist()
        alive = _pairs(tail.maps)
        every = torch.cartesian_prod(torch.arange(args.batch_size), torch.tensor(channels)).to(args.device)
        obvious = partial(one_pass_a_channel, model, layer, images, targets, channels)
        ours = partial(_batch_increases, tail, every, targets, image_losses)
        difference = (obvious() - ours()[channels]).abs().max()
        functions = [obvious, ours, partial(Tail, folded, layer, images)]
        seconds = [timing.median for timing in side_by_side(functions, args.rounds, device=args.device)]
        a_pass, a_tail, cut = seconds[0] / (len(channels) + 1), seconds[1] / len(channels), seconds[2]
        a_tail_works = work(partial(tail, tail.maps, torch.arange(args.batch_size)))
        works += c * a_tail_works
        obvious_total += c * a_pass
        total += cut + c * a_tail
        channels_total += c
        outcome.rows.append(
            [
                layer,
                str(c),
                f"{100 * len(alive) / (c * args.batch_size):.0f}",
                f"{a_pass:.3f}",
                f"{a_tail:.4f}",
                f"{cut:.2f}",
                f"{c * a_pass / (cut + c * a_tail):.1f}",
                f"{a_pass_works / a_tail_works:.1f}",
                f"{difference:.0e}",
            ]
        )
    faster = obvious_total / total
    less = channels_total * a_pass_works / works
    outcome.rows.append(["all", str(channels_total), "", "", "", "", f"{faster:.1f}", f"{less:.1f}", ""])
    outcome.goals.append(
        at_least(10, f"speed of DELTA's channel attention to a pass a channel, {args.backbone}", faster)
    )
    outcome.write(args.out)


if __name__ == "__main__":
    main()
