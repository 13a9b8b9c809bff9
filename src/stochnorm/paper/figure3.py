"""Figure 3 (section 5.3): StochNorm's improvement over plain fine-tuning with two other backbones, CUB-200-2011.

    stochnorm paper figure3 --data-root data/

Hardware: one GPU with 24 GB or more (VGG-16, 48 images of 224 px, float32), 16 GB of memory. Expected: 80 runs of 0.7
hours, 56 hours. It was never run at this scale.

Expected numbers: published as a picture only; the text says that StochNorm "significantly outperforms the vanilla
fine-tuning when data are limited". The paper does not say whether it trained Inception-v3's auxiliary classifier; here
it is trained, at 0.4 of the main loss.
"""

from stochnorm.paper.experiment import INCEPTION_V3, VGG16_BN, Experiment, methods

EXPERIMENT = Experiment(
    name="figure3",
    title="Figure 3: StochNorm with different backbones",
    data=("cub",),
    rates=(15.0, 30.0, 50.0, 100.0),
    variants=methods("vanilla", "stochnorm"),
    backbones=(VGG16_BN, INCEPTION_V3),
    hours=56,
    figure="gain",
    highlight="stochnorm",
)
