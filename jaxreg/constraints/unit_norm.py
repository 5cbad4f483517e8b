"""Euclidean norm one."""

from __future__ import annotations

import jax

from jaxreg._core import groups
from jaxreg._core.penalty import Facts
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg.constraints._norm_bounds import NormBounds, bounded_norm


@pytree_dataclass
class UnitNorm(NormBounds):
    """Arrays, or groups of them, with `||w|| = 1`: the projection is `v / ||v||`.

    Use it where only directions matter, as for prototypes and dictionaries; it is
    Keras' `UnitNorm`. It is not convex: a group of zeros, for which every direction is
    equally near, gets equal entries, and steps must not vary within a group. bfloat16
    leaves are computed in float32. Under `regularize` groups are scaled at the first
    update.

    Args:
      group_axis: the axis, or axes, that index the groups, or `Blocks`; None makes each
        leaf one group.

    Raises:
      TypeError: `group_axis` contains a non-int.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.UnitNorm().prox(jnp.array([3.0, -4.0]), step=1.0)
    Array([ 0.6, -0.8], dtype=float32)
    """

    group_axis: groups.GroupAxis | None = static(default=None)

    facts = Facts(is_convex=False, stationarity_kind="residual")

    @property
    def _bounds(self) -> tuple[float, float]:
        return 1.0, 1.0

    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        del step
        return bounded_norm(leaf, 1.0, 1.0, self._axes)
