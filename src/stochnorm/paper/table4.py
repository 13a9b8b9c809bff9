"""Table 4 (section 5.3): StochNorm combined with each regularizer, top-1 accuracy, ResNet-50.

    stochnorm paper table4 --data-root data/

Hardware: as for Table 3. Expected: 360 runs, 160 hours; 180 of them are Table 3's (the regularizers alone), so 80 hours
after Table 3 with the same --out. It was never run at this scale.

Expected numbers: below the paper's as in Table 3. StochNorm adds 4.8, 2.4 and 2.9 points to L2-SP, DELTA and BSS at
15 % of CUB, 0.8, 1.1 and 1.1 at 100 %. The paper gives no deviations here.
"""

from stochnorm.paper.experiment import Experiment, methods

EXPERIMENT = Experiment(
    name="table4",
    title="Table 4: top-1 accuracy of StochNorm with other methods, ResNet-50",
    data=("cub", "aircraft", "cars"),
    rates=(15.0, 30.0, 50.0, 100.0),
    variants=methods("l2sp", "l2sp+stochnorm", "delta", "delta+stochnorm", "bss", "bss+stochnorm"),
    hours=160,
)
