"""Bounds on the Euclidean norm from both sides."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Facts, Number
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._core.ranges import is_known
from jaxreg.constraints._norm_bounds import NormBounds, bounded_norm


@pytree_dataclass
class MinMaxNorm(NormBounds):
    """Arrays, or groups of them, with `lower <= ||w|| <= upper`.

    The projection scales a group to the nearer bound. Use it to keep units from dying
    as well as from growing; it is Keras' `MinMaxNorm` with `rate=1`. It is not convex:
    a group of zeros, for which every direction is equally near, gets equal entries, and
    steps must not vary within a group. bfloat16 leaves are computed in float32. Under
    `regularize` groups out of bounds are scaled at the first update.

    Args:
      lower: >= 0, the Euclidean norm of a group.
      upper: >= lower.
      group_axis: the axis, or axes, that index the groups, or `Blocks`; None makes each
        leaf one group.

    Raises:
      TypeError: `group_axis` contains a non-int.
      ValueError: `lower` is above `upper`.

    >>> import jax.numpy as jnp, jaxreg
    >>> rows = jaxreg.MinMaxNorm(1.0, 5.0, group_axis=0)
    >>> rows.prox(jnp.array([[6.0, 8.0], [0.3, 0.4], [1.0, 2.0]]), step=1.0)
    Array([[3. , 4. ],
           [0.6, 0.8],
           [1. , 2. ]], dtype=float32)
    """

    lower: Number
    upper: Number
    group_axis: groups.GroupAxis | None = static(default=None)

    facts = Facts(is_convex=False, stationarity_kind="residual")

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_known(jnp.greater, self.lower, self.upper):
            raise ValueError(f"{shown(self)}; allowed: lower <= upper")

    @property
    def _bounds(self) -> tuple[Number, Number]:
        return self.lower, self.upper

    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        del step
        return bounded_norm(leaf, self.lower, self.upper, self._axes)
