"""The nuclear norm."""

from __future__ import annotations

from jaxreg._core.penalty import Number
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg.calculus.spectral import SpectralPenalty
from jaxreg.penalties.l1 import L1


@pytree_dataclass
class NuclearNorm(SpectralPenalty):
    r"""The nuclear norm, `strength * sum_i sigma_i`: a lasso on singular values.

    Its prox thresholds the singular values, so that the leaf becomes a matrix of low
    rank, which two thin factors can replace. Use it to compress dense, convolution and
    attention kernels. It is `spectral(L1(strength), split)`. The subgradient at 0 is 0;
    a leaf is 0 at the optimum once `strength` exceeds the largest singular value of the
    loss gradient there. bfloat16 leaves are computed in float32 and rounded once, entry
    by entry, so that their rank is low only up to that rounding.

    Args:
      strength: >= 0, in units of loss per unit of a singular value.
      split: the number of leading axes that make up the rows; -1 for all but the last,
        so that a `(height, width, in, out)` kernel is `(height * width * in, out)`.
      stacked: the number of axes before those, along which layers are stacked.

    Raises:
      TypeError: `split` is not an int, or `stacked` not an int >= 0.

    Reference: Cai, Candes and Shen 2010, A singular value thresholding algorithm for
    matrix completion, theorem 2.1.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.NuclearNorm(1.0).prox(jnp.diag(jnp.array([3.0, 0.5])), step=1.0)
    Array([[2., 0.],
           [0., 0.]], dtype=float32)
    """

    strength: Number
    split: int = static(default=-1)
    stacked: int = static(default=0)

    @property
    def magnitude(self) -> L1:
        return L1(self.strength)
