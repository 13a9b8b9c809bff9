"""Table 2 (section 5.2): mean AUC of fourteen findings on NIH ChestX-ray14, with little data.

    stochnorm paper table2 --data-root data/

Hardware: one GPU with 16 GB or more, 64 GB of memory, fast disk (test images do not fit the image cache and are decoded
at each use). Expected: 75 runs of 0.8 hours, 60 hours. It was never run at this scale.

Expected numbers: the paper's, 70.4 (5 %) to 76.6 (15 %) for plain fine-tuning, StochNorm 0.4 to 2.1 points higher and
the regularizers mostly lower. The paper's images are unknown; here they are drawn by patient, and the test split is the
official one, so numbers may differ by more than the deviations.
"""

from stochnorm.paper.experiment import Experiment, methods
from stochnorm.runs.scores import MEAN_AUC

EXPERIMENT = Experiment(
    name="table2",
    title="Table 2: AUC on NIH Chest X-ray",
    data=("chestxray14",),
    rates=(5.0, 10.0, 15.0),
    variants=methods("vanilla", "l2sp", "delta", "bss", "stochnorm"),
    hours=60,
    score=MEAN_AUC,
)
