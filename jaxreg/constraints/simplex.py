"""The scaled probability simplex."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.constraint import Constraint
from jaxreg._core.leafwise import Groupwise
from jaxreg._core.penalty import Facts, Number
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.level import cut_to_total


@pytree_dataclass
class Simplex(Groupwise, Constraint):
    """Arrays, or groups of them, with `w >= 0` and `sum w = total`.

    The projection is `max(v - level, 0)` with the level that gives the sum; with steps
    s that vary, `max(v - level s, 0)`. Use it for mixture weights and attention over
    experts. Small entries become exactly 0, in bfloat16 too; a leaf of zeros becomes
    equal shares. Under `regularize` leaves are projected at the first update. It never
    sorts.

    Args:
      total: >= 0, in units of a weight.
      group_axis: the axis, or axes, that index the groups, or `Blocks`; None makes each
        leaf one group.

    Raises:
      TypeError: `group_axis` contains a non-int.

    Reference: Duchi et al. 2008, Efficient projections onto the l1-ball for learning in
    high dimensions, section 3.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.Simplex().prox(jnp.array([1.0, 0.5, -1.0]), step=1.0)
    Array([0.75, 0.25, 0.  ], dtype=float32)
    """

    total: Number = 1.0
    group_axis: groups.GroupAxis | None = static(default=None)

    has_loop = True
    facts = Facts(varying_step=True, stationarity_kind="residual")

    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        total = jnp.asarray(self.total, leaf.dtype)
        return cut_to_total(leaf, self._slopes(leaf, step), total, self._axes).pieces
