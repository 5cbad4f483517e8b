"""ISTA and FISTA with a prox of jaxreg: full-batch solvers of loss + penalty."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxreg

Params = Any
Gradient = Callable[[Params], Params]


class Point(NamedTuple):
    """The parameters, the point ahead of them, and how far momentum has grown."""

    params: Params
    ahead: Params
    growth: jax.Array


class Solution(NamedTuple):
    """The parameters, the iterations they took, and the largest KKT violation."""

    params: Params
    iterations: jax.Array
    violation: jax.Array


def ista_step(
    gradient: Gradient, penalty: jaxreg.Penalty, rate: Any, params: Params
) -> Params:
    """A gradient step and the prox, both of size `rate` (at most 1 / curvature)."""
    grads = gradient(params)
    return penalty.prox(jax.tree.map(lambda w, g: w - rate * g, params, grads), rate)


def fista_start(params: Params) -> Point:
    """At rest."""
    return Point(params, params, jnp.ones(()))


def fista_step(
    gradient: Gradient,
    penalty: jaxreg.Penalty,
    rate: Any,
    point: Point,
    *,
    restart: bool,
) -> Point:
    """Beck and Teboulle 2009, eq. 4.1 to 4.3.

    With `restart` the momentum is dropped where it points uphill (O'Donoghue and Candes
    2015): without it the iterates circle the solution of a well curved problem.
    """
    new = ista_step(gradient, penalty, rate, point.ahead)
    moves = jax.tree.map(jnp.subtract, new, point.params)
    if restart:
        backs = jax.tree.map(jnp.subtract, point.ahead, new)
        products = jax.tree.map(lambda a, b: jnp.sum(a * b), backs, moves)
        is_uphill = sum(jax.tree.leaves(products), start=jnp.zeros(())) > 0
        before = jnp.where(is_uphill, 1.0, point.growth)
    else:
        before = point.growth
    growth = (1 + jnp.sqrt(1 + 4 * before**2)) / 2
    weight = (before - 1) / growth
    ahead = jax.tree.map(lambda w, move: w + weight * move, new, moves)
    return Point(new, ahead, growth)


def solve(
    gradient: Gradient,
    penalty: jaxreg.Penalty,
    rate: Any,
    start: Params,
    *,
    tolerance: Any,
    most: int,
) -> Solution:
    """FISTA with restarts until a step moves no entry by more than rate * tolerance.

    Such a step ends where the KKT conditions hold to within 2 * tolerance, in the
    Euclidean norm. `most` bounds the iterations.
    """

    def is_unfinished(carry: tuple[Point, jax.Array, jax.Array]) -> jax.Array:
        _, count, moved = carry
        return (moved > rate * tolerance) & (count < most)

    def step(carry: tuple[Point, jax.Array, jax.Array]) -> Any:
        point, count, _ = carry
        new = fista_step(gradient, penalty, rate, point, restart=True)
        return new, count + 1, _largest_move(point.ahead, new.params)

    first = fista_start(start), jnp.zeros((), jnp.int32), jnp.full((), jnp.inf)
    point, count, _ = jax.lax.while_loop(is_unfinished, step, first)
    return Solution(point.params, count, violation(penalty, gradient, point.params))


def violation(penalty: jaxreg.Penalty, gradient: Gradient, params: Params) -> jax.Array:
    """The largest entry of `stationarity`: 0 at a minimum of loss + penalty."""
    distances = jax.tree.leaves(penalty.stationarity(params, gradient(params)))
    return functools.reduce(jnp.maximum, map(jnp.max, distances))


def _largest_move(before: Params, after: Params) -> jax.Array:
    moves = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), before, after)
    return functools.reduce(jnp.maximum, jax.tree.leaves(moves))
