"""The sparse group lasso, and the sum of L1 and the group lasso."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.leafwise import Groupwise
from jaxreg._core.penalty import Facts, Number, exact_sum, ratio
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg.penalties.group_lasso import GroupLasso
from jaxreg.penalties.l1 import L1, soft_threshold


@pytree_dataclass
class SparseGroupLasso(Groupwise):
    r"""The sparse group lasso, `l1 * sum |w| + group * sum_g sqrt(n_g) ||w_g||`.

    Whole groups become 0, and single weights within the others. It is the same object
    as `L1(l1) + GroupLasso(group, group_axis)`. Its prox is that of the group lasso
    after soft thresholding, and is exact for per-coordinate steps too. With
    `l1 = a * s` and `group = (1 - a) * s` it is the usual mixture of strength `s`. The
    subgradient at 0 is 0. bfloat16 leaves are computed in float32.

    Args:
      l1: >= 0, in units of loss per unit of weight.
      group: >= 0, in units of loss per unit of weight.
      group_axis: the axis, or axes, that index the groups (leaves need a further axis),
        or `Blocks`.

    Raises:
      TypeError: `group_axis` contains a non-int.

    Reference: Simon, Friedman, Hastie and Tibshirani 2013, A sparse-group lasso.

    >>> import jax.numpy as jnp, jaxreg
    >>> rows = jaxreg.SparseGroupLasso(l1=1.0, group=1.0, group_axis=0)
    >>> rows.prox(jnp.array([[5.0, 0.5, 0.5, 0.5], [1.5, -1.5, 0.0, 0.0]]), step=1.0)
    Array([[2., 0., 0., 0.],
           [0., 0., 0., 0.]], dtype=float32)
    """

    l1: Number
    group: Number
    group_axis: groups.GroupAxis = static()

    facts = Facts(
        varying_step=True, zeros="entries", is_absolute=True, is_homogeneous=True
    )

    carries_nan = True

    def __post_init__(self) -> None:
        groups.check_group_axis(self.group_axis)

    @property
    def _lasso(self) -> GroupLasso:
        return GroupLasso(self.group, self.group_axis)

    def step_for(self, width: Number) -> jax.Array:
        return ratio(width, self.l1 + self.group)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        within = groups.within_axes(groups.indexing(self.group_axis), leaf.ndim)
        entries = L1(self.l1).leaf_values(leaf)
        return self._lasso.leaf_values(leaf) + jnp.sum(entries, within, keepdims=True)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        entries = L1(self.l1).leaf_subgradient(leaf)
        return entries + self._lasso.leaf_subgradient(leaf)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return self._lasso.leaf_prox(soft_threshold(leaf, self.l1 * step), step)

    def leaf_nearest(
        self, latent: jax.Array, leaf: jax.Array, step: jax.Array
    ) -> jax.Array:
        # The prox is a composition: its preimages are taken in reverse order.
        shrunk = soft_threshold(latent, self.l1 * step)
        shrunk = self._lasso.leaf_nearest(shrunk, leaf, step)
        return L1(self.l1).leaf_nearest(latent, shrunk, step)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        axes = groups.indexing(self.group_axis)
        is_dead = groups.root_mean_square(leaf, axes) == 0
        beyond = soft_threshold(grad, jnp.asarray(self.l1, leaf.dtype))
        at_zero = self._lasso.leaf_stationarity(jnp.zeros_like(leaf), beyond)
        pull = grad + self._lasso.leaf_subgradient(leaf)
        return jnp.where(is_dead, at_zero, L1(self.l1).leaf_stationarity(leaf, pull))


@exact_sum(L1, GroupLasso)
def _l1_group(first: L1, second: GroupLasso) -> SparseGroupLasso:
    return SparseGroupLasso(first.strength, second.strength, second.group_axis)


@exact_sum(SparseGroupLasso, L1)
def _with_l1(first: SparseGroupLasso, second: L1) -> SparseGroupLasso:
    return SparseGroupLasso(first.l1 + second.strength, first.group, first.group_axis)
