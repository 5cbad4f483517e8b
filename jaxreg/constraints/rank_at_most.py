"""Matrices of bounded rank."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.constraint import Constraint
from jaxreg._core.groups import check_count
from jaxreg._core.penalty import Facts
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.singular_values import decompose, on_singular_values, outside
from jaxreg.calculus.spectral import MatrixPenalty


@pytree_dataclass
class RankAtMost(MatrixPenalty, Constraint):
    r"""At most `rank` non-zero singular values in a leaf seen as a matrix.

    The projection keeps the largest singular values and drops the others, the nearest
    matrix of that rank. Use it if the rank is known, and the singular values that stay
    must not be shrunk as by `NuclearNorm`. The set is not convex, and if the last
    retained and the first dropped singular value are equal there are several nearest
    points, one of which is returned. Under `regularize` a fresh kernel is not zeroed:
    it is truncated to its leading rank at the first update. bfloat16 leaves are
    computed in float32 and then rounded, entry by entry, so that their rank is exact
    only up to that rounding.

    Args:
      rank: >= 1; leaves with fewer rows or columns are left as they are.
      split: the number of leading axes that make up the rows; -1 for all but the last.
      stacked: the number of axes before those, along which layers are stacked.

    Raises:
      TypeError, ValueError: `rank` is not an int >= 1, `split` not an int, or `stacked`
        not an int >= 0.

    Reference: Eckart and Young 1936, The approximation of one matrix by another of
    lower rank.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.RankAtMost(1).prox(jnp.diag(jnp.array([3.0, 0.5])), step=1.0)
    Array([[3., 0.],
           [0., 0.]], dtype=float32)
    """

    rank: int = static()
    split: int = static(default=-1)
    stacked: int = static(default=0)

    facts = Facts(is_convex=False, stationarity_kind="normal cone")

    def __post_init__(self) -> None:
        check_count("RankAtMost: rank", self.rank, least=1)
        super().__post_init__()

    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        del step
        return on_singular_values(_leading, self, leaf)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        left, sizes, right = decompose(leaf)
        leading = _leading(self, sizes)
        # Below the maximal rank the set holds every small step of rank one.
        is_free = jnp.sum(leading > 0) < self.rank
        idle = jnp.where(is_free, 0.0, outside(left, leading, right, grad))
        return jnp.abs(grad - idle) + jnp.abs(leaf - self.leaf_projection(leaf, grad))


def _leading(constraint: RankAtMost, sizes: jax.Array) -> jax.Array:
    return jnp.where(jnp.arange(sizes.size) < constraint.rank, sizes, 0.0)
