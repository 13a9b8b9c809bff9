"""Figure 4(c) (section 5.4): StochNorm's p, with 15 % of three data sets.

    stochnorm paper figure4c --data-root data/

Hardware: as for Table 3. Expected: 75 runs, 30 hours; p = 0.5 and p = 1 are Table 3's runs, so 18 hours after Table 3
with the same --out. It was never run at this scale.

Expected numbers: published as a picture only; according to the text "the best p sits around 0.5", p = 1 is BatchNorm
(bit for bit here, so its runs are vanilla's), and p = 0 can collapse: runs whose loss is not finite are dashes. The
text does not say which values of p the picture has.
"""

from stochnorm.paper.experiment import Experiment, Variant

EXPERIMENT = Experiment(
    name="figure4c",
    title="Figure 4(c): impact of p",
    data=("cub", "cars", "aircraft"),
    rates=(15.0,),
    variants=(
        Variant("p = 0", {"method": "stochnorm", "p": 0.0}),
        Variant("p = 0.25", {"method": "stochnorm", "p": 0.25}),
        Variant("p = 0.5", {"method": "stochnorm", "p": 0.5}),
        Variant("p = 0.75", {"method": "stochnorm", "p": 0.75}),
        Variant("p = 1", {"method": "vanilla"}),
    ),
    hours=30,
    figure="score",
    highlight="p = 0.5",
)
