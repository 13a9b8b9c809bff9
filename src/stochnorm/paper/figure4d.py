"""Figure 4(d) (section 5.4): StochNorm beside Batch-Instance Normalization, with 15 % of three data sets.

    stochnorm paper figure4d --data-root data/

Hardware: as for Table 3. Expected: 45 runs, 18 hours; BN and StochNorm are Table 3's runs, so 6 hours after it, with
the same --out. It was never run at this scale.

Expected numbers: they stand in a picture alone, as improvements over BN; by the text BIN is "slightly better than BN
but substantially inferior to StochNorm".
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
