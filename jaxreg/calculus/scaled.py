"""A penalty times a number."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_penalty
from jaxreg._core.constraint import Constraint
from jaxreg._core.penalty import Number, Penalty, Tree, grads_like, ratio, widened
from jaxreg._core.pytree import pytree_dataclass
from jaxreg._core.ranges import check_number
from jaxreg.calculus.lift import Lift, step_tree


@pytree_dataclass
class Scaled(Lift):
    """The result of `scaled`."""

    penalty: Penalty
    factor: Number

    def step_for(self, width: Number) -> jax.Array:
        return ratio(self.penalty.step_for(width), self.factor)

    def value(self, params: Tree) -> jax.Array:
        value = self.penalty.value(params)
        return jnp.asarray(self.factor).astype(value.dtype) * value

    def subgradient(self, params: Tree) -> Tree:
        def times(slope: jax.Array) -> jax.Array:
            return (self.factor * widened(slope)).astype(slope.dtype)

        return jax.tree.map(times, self.penalty.subgradient(params))

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        steps = step_tree(params, step)
        return self.penalty.prox(params, jax.tree.map(self._times, steps))

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        weighs = jnp.asarray(self.factor) > 0
        factor = jnp.where(weighs, self.factor, 1.0)
        pulls = [widened(grad) / factor for grad in grads_like(params, grads)]
        treedef = jax.tree.structure(params)
        distances = self.penalty.stationarity(
            params, jax.tree.unflatten(treedef, pulls)
        )

        def restored(distance: jax.Array, grad: jax.Array) -> jax.Array:
            return jnp.where(weighs, factor * distance, jnp.abs(widened(grad)))

        return jax.tree.map(restored, distances, grads)

    def _nearest(self, latent: Tree, params: Tree, step: Number) -> Tree:
        return self.penalty._nearest(latent, params, self._times(jnp.asarray(step)))

    def _times(self, step: jax.Array) -> jax.Array:
        return step * self.factor


def scaled(penalty: Penalty, factor: Number) -> Penalty:
    """The penalty times a number, `factor h(x)`; rules keep their proportions.

    It makes a grid of strengths of any penalty: `scaled(penalty, factor)` under
    `jax.vmap` over `factor`, from `max_strength(penalty, grads)` down. Factor 0 is no
    penalty. A constraint, being 0 or infinite, is unchanged. Zeros and bfloat16 are
    as with `penalty`.

    Args:
      penalty: any penalty, or rules, each of which is scaled.
      factor: >= 0.

    Raises:
      TypeError, ValueError: `penalty` is not a penalty, or `factor` is out of range.

    >>> import jax.numpy as jnp, jaxreg
    >>> double = jaxreg.scaled(jaxreg.on_kernels(jaxreg.L1(0.5)), 2.0)
    >>> double.prox({"kernel": jnp.array([3.0, -0.5])}, step=1.0)
    {'kernel': Array([2., 0.], dtype=float32)}
    """
    check_penalty(penalty, factor=factor)
    check_number("scaled: factor", factor, grids=True)
    return penalty.distribute(_scaled, factor)


def _scaled(penalty: Penalty, factor: Number) -> Penalty:
    return penalty if isinstance(penalty, Constraint) else Scaled(penalty, factor)
