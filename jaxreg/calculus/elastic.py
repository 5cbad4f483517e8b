"""The sum of a penalty and L2."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.penalty import (
    Facts,
    Number,
    Penalty,
    Tree,
    exact_sum,
    grads_like,
    ratio,
    sum_or_none,
    widened,
)
from jaxreg._core.pytree import pytree_dataclass
from jaxreg.calculus.lift import Lift, aligned, cast_like, step_tree, widened_tree


@pytree_dataclass
class Elastic(Lift):
    r"""`h(w) + l2 * sum w^2`, the elastic net if `h` is L1; the result of `h + L2`.

    Completing the square gives its prox, with `a = 1 + 2 l2 s`, for every `h`:

        `prox(v, s) = prox_h(v / a, s / a)`

    Reference: Parikh and Boyd 2014, Proximal algorithms, section 2.2.
    """

    penalty: Penalty
    l2: Number

    @property
    def facts(self) -> Facts:
        return self.penalty.facts.but(is_homogeneous=False)

    def step_for(self, width: Number) -> jax.Array:
        # The forces of the two add up, and the inverse of the step is their sum.
        step = self.penalty.step_for(width)
        return ratio(step, self._stretch(step))

    def value(self, params: Tree) -> jax.Array:
        squares = [jnp.sum(leaf * leaf) for leaf in map(widened, _arrays(params))]
        value = self.penalty.value(params)
        total = sum(squares, start=jnp.zeros((), value.dtype))
        return value + jnp.asarray(self.l2, value.dtype) * total

    def subgradient(self, params: Tree) -> Tree:
        wide = widened_tree(params)
        slopes = jax.tree.map(
            lambda slope, leaf: slope + self._slope(leaf),
            self.penalty.subgradient(wide),
            wide,
        )
        return cast_like(slopes, params)

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        wide, steps = widened_tree(params), step_tree(params, step)
        stretches = jax.tree.map(self._stretch, steps)
        shrunk = jax.tree.map(
            lambda leaf, stretch: leaf / aligned(stretch.astype(leaf.dtype), leaf),
            *(wide, stretches),
        )
        shorter = jax.tree.map(jnp.divide, steps, stretches)
        return cast_like(self.penalty.prox(shrunk, shorter), params)

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        wide, pulls = widened_tree(params), grads_like(params, grads)
        pulls = [
            widened(pull) + self._slope(leaf)
            for pull, leaf in zip(pulls, jax.tree.leaves(wide), strict=True)
        ]
        pulls = jax.tree.unflatten(jax.tree.structure(params), pulls)
        return self.penalty.stationarity(wide, pulls)

    def _nearest(self, latent: Tree, params: Tree, step: Number) -> Tree:
        stretch = self._stretch(jnp.asarray(step))

        def shrunk(z: jax.Array) -> jax.Array:
            return z / stretch.astype(z.dtype)

        shrunken = jax.tree.map(shrunk, latent)
        nearest = self.penalty._nearest(shrunken, params, step / stretch)

        def back(z: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
            # What the penalty kept is kept to the bit.
            return jnp.where(new == old, z, new * stretch.astype(z.dtype))

        return jax.tree.map(back, latent, shrunken, nearest)

    def _stretch(self, step: jax.Array) -> jax.Array:
        return 1 + 2 * self.l2 * step

    def _slope(self, leaf: jax.Array) -> jax.Array:
        return jnp.asarray(2 * self.l2, leaf.dtype) * leaf


def _arrays(params: Tree) -> list[jax.Array]:
    return list(map(jnp.asarray, jax.tree.leaves(params)))


def elastic(penalty: Penalty, l2: Number) -> Penalty:
    """The penalty plus `l2` times the sum of squares."""
    if isinstance(penalty, Elastic):
        return Elastic(penalty.penalty, penalty.l2 + l2)
    return Elastic(penalty, l2)


@exact_sum(Elastic, Penalty)
def _with_other(first: Elastic, second: Penalty) -> Penalty | None:
    both = sum_or_none(first.penalty, second)
    return None if both is None else elastic(both, first.l2)
