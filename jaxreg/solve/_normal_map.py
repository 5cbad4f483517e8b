"""The normal map of loss + penalty, linearized.

At a latent `z` with `x = prox(z)`, the normal map is `F(z) = grad f(x) + (z - x) / s`;
it is 0 exactly where `x` is stationary. With `D` a generalized Jacobian of the prox,
which is symmetric with eigenvalues in [0, 1], and `H` the Hessian of the loss, Newton's
equation `(H D + (1 - D) / s) d = -F` becomes symmetric on the range of `D`.

Reference: Robinson 1992, Normal maps induced by linear transformations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.penalty import Number, Penalty, Tree

Operator = Callable[[Tree], Tree]


class Linearized(NamedTuple):
    """The normal map at a latent, and the operators of its derivative."""

    params: Tree
    residual: Tree
    jacobian: Operator
    hessian: Operator
    step: jax.Array

    def system(self, vector: Tree) -> Tree:
        """`(D (1 - D) + s D H D) vector`: symmetric, >= 0 for convex problems."""
        image = self.jacobian(vector)
        rest = optax.tree.sub(vector, image)
        bent = optax.tree.add_scale(rest, self.step, self.hessian(image))
        return self.jacobian(bent)


def linearize(
    grad: Operator, penalty: Penalty, latent: Tree, step: jax.Array
) -> Linearized:
    """The normal map at `latent`."""
    params, jacobian = jax.linearize(lambda z: penalty.prox(z, step), latent)
    grads, hessian = jax.linearize(grad, params)
    gap = optax.tree.sub(latent, params)
    residual = optax.tree.add_scale(grads, 1 / step, gap)
    return Linearized(params, residual, jacobian, hessian, step)


def conjugate_gradients(
    system: Operator, right: Tree, tolerance: Number, steps: int
) -> Tree:
    """Solves `system(x) = right` from 0, for a symmetric operator >= 0.

    JAX's own applies the operator once more, at 0, and compiles twice as long.
    """
    square = optax.tree.vdot(right, right)

    def iterate(
        carry: tuple[Tree, Tree, Tree, jax.Array, jax.Array],
    ) -> tuple[Tree, Tree, Tree, jax.Array, jax.Array]:
        solution, residual, direction, square, count = carry
        image = system(direction)
        curvature = optax.tree.vdot(direction, image)
        share = jnp.where(curvature > 0, square / _nonzero(curvature), 0)
        solution = optax.tree.add_scale(solution, share, direction)
        residual = optax.tree.add_scale(residual, -share, image)
        new_square = optax.tree.vdot(residual, residual)
        # No curvature: what is left of the residual has no solution.
        new_square = jnp.where(curvature > 0, new_square, 0)
        ratio = new_square / _nonzero(square)
        direction = optax.tree.add_scale(residual, ratio, direction)
        return solution, residual, direction, new_square, count + 1

    zeros = optax.tree.zeros_like(right)
    return jax.lax.while_loop(
        lambda carry: (carry[3] > tolerance**2 * square) & (carry[4] < steps),
        iterate,
        (zeros, right, right, square, jnp.zeros((), jnp.int32)),
    )[0]


def _nonzero(number: jax.Array) -> jax.Array:
    return jnp.where(number > 0, number, 1)
