"""A penalty on weights that may not be negative."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_penalty
from jaxreg._core.constraint import are_apart
from jaxreg._core.messages import shown
from jaxreg._core.penalty import (
    Facts,
    Number,
    Penalty,
    Tree,
    exact_sum,
    grads_like,
    sum_or_none,
    widened,
)
from jaxreg._core.pytree import pytree_dataclass
from jaxreg.calculus.lift import Lift, step_tree, unless_zero_step


@pytree_dataclass
class Nonnegative(Lift):
    """The result of `nonnegative`."""

    penalty: Penalty

    @property
    def facts(self) -> Facts:
        return self.penalty.facts.but(is_radial=False)

    def value(self, params: Tree) -> jax.Array:
        # The gradient stays that of the penalty, finite where the value is not.
        leaves = jax.tree.leaves(params)
        wide = jax.lax.stop_gradient(list(map(widened, leaves)))
        is_off = are_apart(leaves, wide, _positive(wide))
        return self.penalty.value(params) + jnp.where(is_off, jnp.inf, 0.0)

    def subgradient(self, params: Tree) -> Tree:
        return self.penalty.subgradient(params)

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        steps = step_tree(params, step)
        nearest = self.penalty.prox(_positive(params), steps)
        return unless_zero_step(steps, nearest, params)

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        def pull(leaf: jax.Array, grad: jax.Array) -> jax.Array:
            # At 0 the constraint balances any pull towards negative weights.
            grad = widened(grad)
            return jnp.where(jnp.asarray(leaf) == 0, jnp.minimum(grad, 0.0), grad)

        leaves, treedef = jax.tree.flatten(params)
        pulls = grads_like(params, grads)
        pulls = jax.tree.unflatten(treedef, map(pull, leaves, pulls))
        return self.penalty.stationarity(params, pulls)

    def _nearest(self, latent: Tree, params: Tree, step: Number) -> Tree:
        inner = self.penalty._nearest(_positive(latent), _positive(params), step)

        # Where that is 0, every latent below 0 has the same prox.
        def nearest(z: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.where(new > 0, new, jnp.minimum(z, 0))

        return jax.tree.map(nearest, latent, inner)


def _positive(params: Tree) -> Tree:
    return jax.tree.map(lambda leaf: jnp.maximum(jnp.asarray(leaf), 0), params)


def nonnegative(penalty: Penalty) -> Penalty:
    """The penalty on weights >= 0, and infinite elsewhere.

    Its prox, `prox_h(max(v, 0))`, is exact whenever the penalty depends on magnitudes
    alone and rises in each: negative weights become exactly 0, and positive ones are
    shrunk as without the constraint. `nonnegative(L1(s))` is scikit-learn's
    `Lasso(s, positive=True)`. The subgradient is that of the penalty; under
    `regularize` negative weights start at 0. bfloat16 is as with `penalty`.

    Args:
      penalty: an elementwise or group penalty, `SparseGroupLasso`, `L2Ball`, one of
        these weighted or scaled, or rules of such penalties.

    Raises:
      TypeError: the penalty does not depend on magnitudes alone, so that this prox
        would solve another problem.

    Reference: Parikh and Boyd 2014, Proximal algorithms, section 6.5.2 (for L1).

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.nonnegative(jaxreg.L1(0.5)).prox(jnp.array([2.0, 0.3, -4.0]), step=1.0)
    Array([1.5, 0. , 0. ], dtype=float32)
    """
    check_penalty(penalty)
    return penalty.distribute(lambda inner, _: _nonnegative(inner), 0.0)


def _nonnegative(penalty: Penalty) -> Nonnegative:
    if not penalty.facts.is_absolute:
        raise TypeError(
            f"nonnegative({shown(penalty)}): its prox on weights >= 0 is not that of "
            "max(v, 0). Allowed are elementwise and group penalties, SparseGroupLasso "
            "and L2Ball, these weighted or scaled, and by_path of them"
        )
    return Nonnegative(penalty)


@exact_sum(Nonnegative, Penalty)
def _with_other(first: Nonnegative, second: Penalty) -> Nonnegative | None:
    if isinstance(second, Nonnegative):
        second = second.penalty
    both = sum_or_none(first.penalty, second)
    return Nonnegative(both) if both is not None and both.facts.is_absolute else None
