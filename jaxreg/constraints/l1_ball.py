"""A bound on the L1 norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.constraint import Constraint
from jaxreg._core.leafwise import Groupwise, magnitude
from jaxreg._core.penalty import Facts, Number
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.level import cut_to_total


@pytree_dataclass
class L1Ball(Groupwise, Constraint):
    """Arrays, or groups of them, with `sum |w| <= radius`.

    The projection is soft thresholding with the threshold that reduces the sum to the
    radius; with steps s that vary the threshold is `level * s`. Use it if the sum of
    magnitudes is known in advance: it is the `L1` norm as a budget rather than a cost.
    Small entries become exactly 0, in bfloat16 too. Under `regularize` leaves outside
    are projected at the first update. It sums and never sorts.

    Args:
      radius: >= 0, in units of a weight.
      group_axis: the axis, or axes, that index the groups, or `Blocks`; None makes each
        leaf one group.

    Raises:
      TypeError: `group_axis` contains a non-int.

    Reference: Duchi et al. 2008, Efficient projections onto the l1-ball for learning in
    high dimensions, section 4.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.L1Ball(2.0).prox(jnp.array([2.0, -1.5, 0.5]), step=1.0)
    Array([ 1.25, -0.75,  0.  ], dtype=float32)
    """

    radius: Number
    group_axis: groups.GroupAxis | None = static(default=None)

    has_loop = True
    facts = Facts(varying_step=True, stationarity_kind="residual")

    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        radius, size = jnp.asarray(self.radius, leaf.dtype), magnitude(leaf)
        within = groups.within_axes(self._axes, leaf.ndim)
        is_outside = jnp.sum(size, axis=within, keepdims=True) > radius
        pieces = cut_to_total(size, self._slopes(leaf, step), radius, self._axes).pieces
        return jnp.where(is_outside, jnp.sign(leaf) * pieces, leaf)
