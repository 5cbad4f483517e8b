"""The group lasso."""

from __future__ import annotations

from jaxreg._core import groups
from jaxreg._core.penalty import Number, exact_sum
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._core.ranges import check_number
from jaxreg.calculus.grouped import Grouped, GroupPenalty
from jaxreg.penalties.elastic_net import ElasticNet
from jaxreg.penalties.l1 import L1
from jaxreg.penalties.l2 import L2


@pytree_dataclass
class GroupLasso(GroupPenalty):
    r"""The group lasso, `strength * sum_g sqrt(n_g) ||w_g||`: whole groups become 0.

    `n_g` is the number of entries of group `g`, so that one strength suits groups of
    every size; it is `grouped(L1(strength), group_axis)`. Use it to drop input features
    (`group_axis=0` of a `(inputs, outputs)` kernel), neurons (`group_axis=1`) or
    convolution filters (`group_axis=3` of a `(h, w, in, out)` kernel). The prox shrinks
    a group's norm by `strength sqrt(n_g) s` and sets it to exactly 0 below that. The
    subgradient at a zero group is 0. bfloat16 leaves are computed in float32.

    Args:
      strength: >= 0, in units of loss per unit of weight.
      group_axis: the axis, or axes, that index the groups (leaves need a further axis),
        or `Blocks`.

    Raises:
      TypeError: `group_axis` contains a non-int.

    Reference: Yuan and Lin 2006, Model selection and estimation in regression with
    grouped variables, eq. 2.1.

    >>> import jax.numpy as jnp, jaxreg
    >>> rows = jaxreg.GroupLasso(1.0, group_axis=0)
    >>> rows.prox(jnp.array([[3.0, 3.0], [0.5, -0.5]]), step=1.0)
    Array([[2., 2.],
           [0., 0.]], dtype=float32)
    """

    strength: Number
    group_axis: groups.GroupAxis = static()

    def __post_init__(self) -> None:
        groups.check_group_axis(self.group_axis)

    @classmethod
    def from_sklearn(cls, alpha: Number, outputs: int) -> GroupLasso:
        """The penalty of `sklearn.linear_model.MultiTaskLasso(alpha)`.

        It applies to kernels `(features, outputs)`, the transpose of `coef_`, with the
        loss `||Y - XW||^2 / (2 n)`. scikit-learn does not weight groups by their size.

        >>> import jaxreg
        >>> jaxreg.GroupLasso.from_sklearn(alpha=0.5, outputs=4)
        GroupLasso(strength=0.25, group_axis=0)
        """
        check_number("GroupLasso.from_sklearn: alpha", alpha, grids=True)
        groups.check_count("GroupLasso.from_sklearn: outputs", outputs, least=1)
        return cls(alpha / outputs**0.5, 0)

    @property
    def magnitude(self) -> L1:
        return L1(self.strength)


@exact_sum(GroupLasso, L2)
def _with_l2(first: GroupLasso, second: L2) -> Grouped:
    # The squared norm of a leaf is the sum of those of its groups.
    return Grouped(ElasticNet(first.strength, second.strength), first.group_axis)
