"""A bound on the Euclidean norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.penalty import Facts, Number
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.level import shrink_to_norm
from jaxreg.constraints._norm_bounds import NormBounds, bounded_norm


@pytree_dataclass
class L2Ball(NormBounds):
    """Arrays, or groups of them, with `||w|| <= radius`: max-norm regularization.

    The projection scales a group down to the radius; with steps s that vary it is
    `v / (1 + level s)`. Use it with dropout, or to bound a layer. Keras'
    `MaxNorm(2, axis=0)` on an `(inputs, outputs)` kernel is
    `L2Ball(2.0, group_axis=1)`. A group of zeros does not change. bfloat16 leaves are
    computed in float32. Under `regularize` groups outside are scaled at the first
    update.

    Args:
      radius: >= 0, the Euclidean norm of a group.
      group_axis: the axis, or axes, that index the groups, or `Blocks`; None makes each
        leaf one group.

    Raises:
      TypeError: `group_axis` contains a non-int.

    Reference: Parikh and Boyd 2014, Proximal algorithms, section 6.5.1.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.L2Ball(1.0).prox(jnp.array([3.0, -4.0]), step=1.0)
    Array([ 0.6, -0.8], dtype=float32)
    """

    radius: Number
    group_axis: groups.GroupAxis | None = static(default=None)

    has_loop = True
    facts = Facts(
        varying_step=True,
        is_absolute=True,
        is_radial=True,
        stationarity_kind="residual",
    )

    @property
    def _bounds(self) -> tuple[Number, Number]:
        return 0.0, self.radius

    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        radius = jnp.asarray(self.radius, leaf.dtype)
        if self.layout.is_uniform(step.shape, leaf.ndim):
            return bounded_norm(leaf, 0.0, radius, self._axes)
        return shrink_to_norm(leaf, self._slopes(leaf, step), radius, self._axes)
