"""Figure 4(b) (section 5.4): StochNorm's alpha, the momentum of the moving statistics, with 15 % of three data sets.

    stochnorm paper figure4b --data-root data/

Hardware: as for Table 3. Expected: 45 runs, 18 hours; vanilla and alpha = 0.1 are Table 3's runs, so 6 hours after
Table 3 with the same --out. It was never run at this scale.

Expected numbers: published as a picture only, as improvements over plain fine-tuning; according to the text 0.001 is
"slightly worse" than 0.1.
"""

from stochnorm.paper.experiment import Experiment, Variant

EXPERIMENT = Experiment(
    name="figure4b",
    title="Figure 4(b): impact of alpha",
    data=("cub", "cars", "aircraft"),
    rates=(15.0,),
    variants=(
        Variant("vanilla", {"method": "vanilla"}),
        Variant("alpha = 0.001", {"method": "stochnorm", "norm_momentum": 0.001}),
        Variant("alpha = 0.1", {"method": "stochnorm"}),  # ResNet-50's own, so that the run is Table 3's
    ),
    hours=18,
    figure="gain",
    highlight="alpha = 0.1",
)
