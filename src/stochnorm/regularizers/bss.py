"""Batch Spectral Shrinkage (Chen et al.: *Catastrophic Forgetting Meets Negative Transfer*, NeurIPS 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from stochnorm.regularizers.regularizer import Regularizer, Step

__all__ = ["BSS", "batch_spectral_shrinkage"]


def batch_spectral_shrinkage(features: Tensor, k: int = 1) -> Tensor:
    r"""Return the sum of the squares of the k smallest singular values of a batch's features.

    $$ L(F) = \sum_{i=1}^{k} \sigma_{-i}(F)^2 = \sum_{i=1}^{k} \lambda_{-i}(F F^\top), \qquad
       \nabla L = 2 U_k U_k^\top F $$

    The columns of $U_k$ are the eigenvectors of the k smallest eigenvalues. They come from the smaller Gram matrix,
    $F F^\top$ or $F^\top F$, in float64 because squaring halves the digits (in float32 on devices without float64).
    Value and gradient are those of the singular value decomposition, several times faster. The value is exact to about
    1e-15 of the *largest* squared singular value; smaller values are rounding errors and may be negative. The gradient
    does not divide by differences of eigenvalues, so it is finite if some are equal or zero. The second derivative
    does, so it needs distinct eigenvalues. Features that are not finite give nan.

    On a GPU, `torch.linalg.eigvalsh` waits for the device once per call. So a step with this penalty waits once, and a
    CUDA graph cannot capture it.

    Args:
        features: Input of the head, any floating dtype; also under autocast.
        k: Number of singular values to shrink.

    Shape:
        - features: (b, d), images by features.

    Returns:
        A float32 scalar; float64 for float64 features.

    Raises:
        ValueError: The features are not of shape (b, d), or k is not in 1 ... min(b, d).

    Example:
        >>> batch_spectral_shrinkage(torch.tensor([[3.0, 0, 0], [0, 2, 0]]))
        tensor(4.)
    """
    if features.dim() != 2:
        raise ValueError(f"features must be of shape (b, d), images by features, got {tuple(features.shape)}; flatten")
    b, d = features.shape
    if not 1 <= k <= min(b, d):
        raise ValueError(
            f"k must be in 1 ... min(b, d) = {min(b, d)}, the number of singular values, got {k} for features of shape "
            f"({b}, {d}); choose a smaller k or a larger batch"
        )
    device = features.device.type
    with torch.autocast(device, enabled=False):
        wide = features.to(torch.float32 if device == "mps" else torch.float64)
        gram = wide @ wide.T if b <= d else wide.T @ wide
        try:
            penalty: Tensor = torch.linalg.eigvalsh(gram)[:k].sum()
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            if gram.isfinite().all():
                raise
            penalty = gram.sum() * torch.nan  # the training loop reports a diverged run
        return penalty.to(torch.promote_types(features.dtype, torch.float32))


class BSS(Regularizer):
    """A penalty that shrinks the weakest directions of the features, which transfer the least.

    Args:
        eta: Strength.
        k: Number of singular values per batch; at most the batch size.

    Raises:
        ValueError: A negative strength, or k below 1.

    Example:
        >>> features = torch.randn(8, 16, requires_grad=True)
        >>> penalty = BSS(eta=1e-3)(Step(torch.empty(8, 3, 4, 4), torch.zeros(8), torch.zeros(8, 2), features))
        >>> penalty.backward()
    """

    waits = "the eigenvalue solver reads an error code on the host"

    def __init__(self, *, eta: float = 1e-3, k: int = 1) -> None:
        super().__init__()
        if not eta >= 0:
            raise ValueError(f"eta must be 0 or more, got {eta}")
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"k must be a whole number from 1 (singular values to shrink), got {k!r}")
        self.eta, self.k = eta, k

    def forward(self, step: Step) -> Tensor:
        """Return the penalty of the step's features."""
        return self.eta * batch_spectral_shrinkage(step.features, self.k)
