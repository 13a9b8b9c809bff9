"""Figure 4(a) (section 5.4): StochNorm's moving statistics at the start, with 15 % of three data sets.

    stochnorm paper figure4a --data-root data/

Hardware: as for Table 3. Expected: 60 runs, 24 hours; BN and the inherited statistics are Table 3's runs, so 12 hours
after Table 3 with the same --out. It was never run at this scale.

Expected numbers: published as a picture only; according to the text BN is worst, (0, 1) "significantly surpasses BN",
statistics of the target's training images are better, inherited ones best. The paper does not say whether the axis is
accuracy.
"""

from stochnorm.paper.experiment import Experiment, Variant

EXPERIMENT = Experiment(
    name="figure4a",
    title="Figure 4(a): initialization of the moving statistics",
    data=("cub", "cars", "aircraft"),
    rates=(15.0,),
    variants=(
        Variant("BN", {"method": "vanilla"}),
        Variant("(0, 1)", {"method": "stochnorm", "statistics": "zero_one"}),
        Variant("target", {"method": "stochnorm", "statistics": "target"}),
        Variant("pre-trained", {"method": "stochnorm"}),
    ),
    hours=24,
    figure="score",
    highlight="pre-trained",
)
