"""The Moreau envelope, and the prox of the conjugate."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_numbers, check_penalty, check_prox
from jaxreg._core.messages import shown
from jaxreg._core.penalty import (
    Facts,
    Number,
    Penalty,
    Tree,
    grads_like,
    widened,
)
from jaxreg._core.pytree import positive, pytree_dataclass
from jaxreg._core.ranges import check_step
from jaxreg.calculus.lift import Lift, cast_like, step_tree, widened_tree


@pytree_dataclass
class Envelope(Lift):
    """The result of `envelope`."""

    penalty: Penalty
    step: Number = positive()

    @property
    def facts(self) -> Facts:
        return self.penalty.facts.but(
            stationarity_kind="distance",
            zeros=None,
            is_absolute=False,
            is_homogeneous=False,
        )

    def step_for(self, width: Number) -> jax.Array:
        # With it the prox maps 2 width to width for L2, to at most width if convex.
        return self.penalty.step_for(width) + self.step

    def value(self, params: Tree) -> jax.Array:
        return _value(self, widened_tree(params))

    def subgradient(self, params: Tree) -> Tree:
        wide = widened_tree(params)
        return cast_like(self._slopes(wide), params)

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        wide, steps = widened_tree(params), step_tree(params, step)
        total = jax.tree.map(lambda s: s + self.step, steps)
        far = self.penalty.prox(wide, total)

        def moved(leaf: jax.Array, end: jax.Array, s: jax.Array) -> jax.Array:
            s = s.astype(leaf.dtype)
            return leaf + s / (s + self._step(leaf)) * (end - leaf)

        return cast_like(jax.tree.map(moved, wide, far, steps), params)

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        slopes = self._slopes(widened_tree(params))
        leaves, treedef = jax.tree.flatten(slopes)
        pulls = grads_like(params, grads)
        pairs = zip(leaves, pulls, strict=True)
        distances = [jnp.abs(slope + widened(pull)) for slope, pull in pairs]
        return jax.tree.unflatten(treedef, distances)

    def _slopes(self, wide: Tree) -> Tree:
        nearest = self.penalty.prox(wide, self.step)
        return jax.tree.map(lambda x, y: (x - y) / self._step(x), wide, nearest)

    def _step(self, leaf: jax.Array) -> jax.Array:
        return jnp.asarray(self.step).astype(leaf.dtype)


@jax.custom_jvp
def _value(penalty: Envelope, wide: Tree) -> jax.Array:
    return _objective(penalty, wide, penalty.penalty.prox(wide, penalty.step))


@_value.defjvp
def _value_jvp(
    primals: tuple[Envelope, Tree], tangents: tuple[Envelope, Tree]
) -> tuple[jax.Array, jax.Array]:
    """The derivative is that with the minimiser held constant."""
    penalty, wide = primals
    nearest = penalty.penalty.prox(wide, penalty.step)

    def height(penalty: Envelope, wide: Tree) -> jax.Array:
        return _objective(penalty, wide, nearest)

    return jax.jvp(height, primals, tangents)


def _objective(penalty: Envelope, wide: Tree, nearest: Tree) -> jax.Array:
    value = penalty.penalty.value(nearest)
    pairs = zip(jax.tree.leaves(wide), jax.tree.leaves(nearest), strict=True)
    for leaf, near in pairs:
        value = value + jnp.sum((leaf - near) ** 2 / (2 * penalty._step(leaf)))
    return value


def envelope(penalty: Penalty, step: Number) -> Penalty:
    """The Moreau envelope, `min_x h(x) + ||x - v||^2 / (2 step)`: a smoothed penalty.

    Its gradient is `(v - prox_h(v)) / step`, of slope at most `1 / step` where the
    penalty is convex; it has the minimisers of the penalty and leaves no zeros.
    `envelope(L1(a), s)` is Huber's function, quadratic up to `a s`; of a constraint it
    is half the squared distance over `step`. Half precision is computed in float32.

    Args:
      penalty: a convex penalty with a prox, or rules of such penalties.
      step: > 0, as in the prox.

    Raises:
      TypeError: `penalty` is not a penalty, or has no prox.
      ValueError: the penalty is not convex.

    Reference: Moreau 1965; Parikh and Boyd 2014, Proximal algorithms, section 3.1.

    >>> import jax.numpy as jnp, jaxreg
    >>> huber = jaxreg.envelope(jaxreg.L1(1.0), step=1.0)
    >>> huber.subgradient(jnp.array([-3.0, 0.0, 0.5]))
    Array([-1. ,  0. ,  0.5], dtype=float32)
    """
    check_penalty(penalty, step=step)
    _check_convex(f"envelope({shown(penalty)}, ...)", penalty)
    return penalty.distribute(Envelope, step)


def conjugate_prox(penalty: Penalty, params: Tree, step: Number | Tree) -> Tree:
    """The prox of the convex conjugate, `v - step prox_{h / step}(v / step)`.

    Primal-dual methods need it; of a norm it is the projection on the ball of the dual
    norm. Step 0 returns `params`. Half precision is computed in float32.

    Args:
      penalty: a convex penalty with a prox, or rules of such penalties.
      params: the tree `v`, as in the prox.
      step: >= 0, a number or a tree with the structure of `params`, as in the prox.

    Raises:
      TypeError: `penalty` is not a penalty, or has no prox.
      ValueError: the penalty is not convex.

    Reference: Moreau 1965; Parikh and Boyd 2014, Proximal algorithms, section 2.5.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.conjugate_prox(jaxreg.L1(1.0), jnp.array([3.0, -0.5]), step=0.5)
    Array([ 1. , -0.5], dtype=float32)
    """
    check_numbers(penalty, params=params, step=step)
    _check_convex(f"conjugate_prox({shown(penalty)}, ...)", penalty)
    penalty._check_leaves("params", params)
    check_step(step)
    wide, steps = widened_tree(params), step_tree(params, step)
    divisors = jax.tree.map(lambda s: jnp.where(s > 0, s, 1.0), steps)
    inverse = jax.tree.map(lambda s: 1 / s, divisors)
    scaled = jax.tree.map(lambda x, s: x / s.astype(x.dtype), wide, divisors)
    near = penalty.prox(scaled, inverse)

    def moved(leaf: jax.Array, s: jax.Array, end: jax.Array) -> jax.Array:
        return jnp.where(s > 0, leaf - s.astype(leaf.dtype) * end, leaf)

    return cast_like(jax.tree.map(moved, wide, steps, near), params)


def _check_convex(call: str, penalty: Penalty) -> None:
    check_prox(call, penalty)
    if not penalty.facts.is_convex:
        raise ValueError(
            f"{call}: the penalty is not convex: its conjugate belongs to its convex "
            "hull, and its envelope has kinks. Allowed are convex penalties"
        )
