"""Terms of the loss against over-fitting, one file per paper, for any training loop; needs only torch."""

from stochnorm.regularizers.bituning import BiTuning
from stochnorm.regularizers.bss import BSS, batch_spectral_shrinkage
from stochnorm.regularizers.cotuning import CoTuning
from stochnorm.regularizers.delta import DELTA, delta
from stochnorm.regularizers.l2_sp import L2SP, l2_sp
from stochnorm.regularizers.lwf import LwF
from stochnorm.regularizers.regularizer import Regularizer, Step

__all__ = [
    "BSS",
    "DELTA",
    "L2SP",
    "BiTuning",
    "CoTuning",
    "LwF",
    "Regularizer",
    "Step",
    "batch_spectral_shrinkage",
    "delta",
    "l2_sp",
]
