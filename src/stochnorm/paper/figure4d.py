"""Figure 4(d) (section 5.4): StochNorm compared with Batch-Instance Normalization, with 15 % of three data sets.

    stochnorm paper figure4d --data-root data/

Hardware: as for Table 3. Expected: 45 runs, 18 hours; BN and StochNorm are Table 3's runs, so 6 hours after Table 3
with the same --out. It was never run at this scale.

Expected numbers: published as a picture only, as improvements over BN; according to the text BIN is "slightly better
than BN but substantially inferior to StochNorm".
"""

from stochnorm.paper.experiment import Experiment, Variant

EXPERIMENT = Experiment(
    name="figure4d",
    title="Figure 4(d): other normalization",
    data=("cub", "cars", "aircraft"),
    rates=(15.0,),
    variants=(
        Variant("BN", {"method": "vanilla"}),
        Variant("BIN", {"method": "bin"}),
        Variant("StochNorm", {"method": "stochnorm"}),
    ),
    hours=18,
    figure="gain",
    highlight="StochNorm",
)
