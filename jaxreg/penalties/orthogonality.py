"""The orthogonality regularizer: the cosines between the groups of a leaf."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.layout import Groups, Shape
from jaxreg._core.leafwise import GradientOnly, magnitude
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Number
from jaxreg._core.pytree import pytree_dataclass, static


class _Rows(Groups):
    """Layout of groups that are compared with each other."""

    def always_whole_axes(self, shape: Shape) -> Sequence[int]:
        return range(len(shape))


@pytree_dataclass
class Orthogonality(GradientOnly):
    r"""The cosines between groups, `strength * sum_{i<j} |<w_i, w_j>| / (|w_i| |w_j|)`.

    The groups `w_i` are those of `group_axis`, flattened. It turns them away from each
    other without changing their lengths. A zero group adds nothing to the value, and
    its gradient is 0, as is that of orthogonal pairs. It has no useful prox: chain
    `add_penalty_gradient(it)` before the optimizer; to make a leaf exactly orthogonal
    use `Orthogonal`. The cost is one product of the leaf with its transpose, a matrix
    of groups times groups. bfloat16 leaves are computed in float32.

    Keras' `OrthogonalRegularizer(factor, mode="rows")` is the mean over the
    `n (n - 1) / 2` pairs of n rows: `factor = strength n (n - 1) / 2` with
    `group_axis=0`, and `group_axis=1` for `mode="columns"`.

    Args:
      strength: >= 0, in units of loss per pair.
      group_axis: the axis that indexes the groups, such as 1 for the neurons of an
        `(inputs, outputs)` kernel or 3 for the filters of a convolution.

    Raises:
      TypeError: `group_axis` is not an int.

    Reference: Keras, `keras.regularizers.OrthogonalRegularizer`.

    >>> import jax.numpy as jnp, jaxreg
    >>> rows = jnp.array([[1.0, 0.0], [3.0, 4.0]])
    >>> print(f"{jaxreg.Orthogonality(1.0, group_axis=0).value(rows):.4f}")
    0.6000
    """

    strength: Number
    group_axis: int = static()

    def __post_init__(self) -> None:
        axis = self.group_axis
        if not groups.is_int(axis):
            raise TypeError(
                f"Orthogonality: group_axis is {shown(axis)}; allowed: an int, the "
                "axis that indexes the groups"
            )

    @property
    def layout(self) -> _Rows:
        return _Rows(self.group_axis)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        rows = jnp.moveaxis(leaf, self.group_axis, 0).reshape(
            leaf.shape[self.group_axis], -1
        )
        # Cosines do not depend on the lengths, which the first division can therefore
        # treat as constants: the derivative of the second neither under- nor overflows.
        near_unit = rows / jax.lax.stop_gradient(_lengths(rows))
        units = near_unit / _lengths(near_unit)
        cosines = jnp.matmul(units, units.T, precision="highest")
        return self.strength * jnp.sum(magnitude(jnp.triu(cosines, 1)))


def _lengths(rows: jax.Array) -> jax.Array:
    """The norm of each row, and 1 for a row of zeros."""
    rms = groups.root_mean_square(rows, (0,))
    return jnp.where(rms > 0, rms * rows.shape[1] ** 0.5, 1.0)
