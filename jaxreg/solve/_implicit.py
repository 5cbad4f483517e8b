"""The derivative of a solution by whatever the loss and the penalty hold.

A solution satisfies `x = prox_theta(x - s grad f_theta(x))`. With `D` the Jacobian of
the prox there and `H` the Hessian, its differential solves

    (1 - D (1 - s H)) dx = d_theta prox_theta(x - s grad f_theta(x)),

where the right side is the derivative with `x` held fixed. By the elimination
`dx = r + D q` the system becomes `(D (1 - D) + s D H D) q = D (r - s H r)`, symmetric.
`D` drops zero entries by itself, turns groups, and moves fused entries together.

Reference: Bertrand et al. 2022, Implicit differentiation for fast hyperparameter
selection in non-smooth convex learning.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.penalty import Penalty, Tree
from jaxreg.solve._normal_map import conjugate_gradients, linearize

# Products with the Hessian per derivative.
_CG_STEPS = 200

# The relative residual, in units of rounding: 1e-10 in float64, 1e-6 in float32.
_CG_ROUNDINGS = {8: 5e5, 4: 10.0}

Theta = tuple[Penalty, tuple[Any, ...]]
"""The penalty, and the arguments of the loss behind the parameters."""


def differentiable(
    loss: Callable[..., jax.Array], theta: Theta, params: Tree, step: jax.Array
) -> Tree:
    """The solution `params`, with its derivatives by `theta`."""
    penalty, data = theta
    params, step = jax.lax.stop_gradient((params, step))
    grads = jax.grad(loss)(params, *data)
    latent = optax.tree.add_scale(params, -step, grads)
    residual = optax.tree.sub(penalty.prox(latent, step), params)
    return _attach(loss, params, residual, jax.lax.stop_gradient(theta), step)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attach(
    loss: Callable[..., jax.Array],
    params: Tree,
    residual: Tree,
    theta: Theta,
    step: jax.Array,
) -> Tree:
    """`params`, whose differential is that of the residual, carried on by the system.

    All that depends on theta goes through the residual, so that this rule closes over
    nothing.
    """
    del loss, residual, theta, step
    return params


@_attach.defjvp
def _attach_jvp(
    loss: Callable[..., jax.Array],
    primals: tuple[Tree, Tree, Theta, jax.Array],
    tangents: tuple[Tree, Tree, Theta, jax.Array],
) -> tuple[Tree, Tree]:
    params, residual, (penalty, data), step = primals
    grads = jax.grad(loss)(params, *data)
    latent = optax.tree.add_scale(params, -step, grads)
    map_ = linearize(lambda x: jax.grad(loss)(x, *data), penalty, latent, step)
    jacobian, hessian = map_.jacobian, map_.hessian
    eps = jnp.finfo(step.dtype)
    tolerance = float(eps.eps) * _CG_ROUNDINGS[eps.bits // 8]

    def solve_system(right: Tree) -> Tree:
        return conjugate_gradients(map_.system, right, tolerance, _CG_STEPS)

    def moved(vector: Tree) -> Tree:
        return optax.tree.add_scale(vector, -step, hessian(vector))

    def matrix(vector: Tree) -> Tree:
        return optax.tree.sub(vector, jacobian(moved(vector)))

    def solve(_: object, right: Tree) -> Tree:
        inner = solve_system(jacobian(moved(right)))
        return optax.tree.add(right, jacobian(inner))

    def solve_transposed(_: object, right: Tree) -> Tree:
        inner = solve_system(jacobian(right))
        return optax.tree.add(right, moved(jacobian(inner)))

    # The rule itself would be differentiated as if the operators were constants.
    guard = optax.tree.scale(0.0, _differentiated_once(residual))
    tangent = optax.tree.add(tangents[1], guard)
    solved = jax.lax.custom_linear_solve(matrix, tangent, solve, solve_transposed)
    return params, solved


@jax.custom_jvp
def _differentiated_once(residual: Tree) -> Tree:
    """The residual; a derivative of it here is a second one of the solution."""
    return residual


@_differentiated_once.defjvp
def _differentiated_twice(primals: object, tangents: object) -> NoReturn:
    raise NotImplementedError(
        "minimise: a solution has first derivatives alone, and this is a second one; "
        "differentiate once, as in jax.grad of a validation loss"
    )
