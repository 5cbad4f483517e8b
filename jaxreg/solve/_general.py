"""Loss + penalty over any tree: accelerated proximal gradient steps, Newton to finish.

Rounds of FISTA with backtracking and restarts lead. After a round, a semismooth Newton
step on the normal map is tried, which on convex losses replaces hundreds of gradient
steps near the solution; it is taken only if it lowers the objective.

References: Beck and Teboulle 2009 (FISTA); O'Donoghue and Candes 2015 (restarts);
Qi and Sun 1993 (semismooth Newton).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.penalty import Number, Penalty, Tree
from jaxreg.rules.by_path import Leaves
from jaxreg.solve._normal_map import conjugate_gradients, linearize

CONVERGED, MAX_STEPS, PRECISION, NOT_FINITE = range(4)

# A working set that is full, which goes on with a larger one and is no end.
CAPACITY = 4

# Gradient steps between two looks at the stationarity.
_ROUND = 10

# Rounds without progress after which nothing but rounding is left.
_PATIENCE = 20

# A step is halved at most this often: by 1e-18, beyond any curvature of float32.
_HALVINGS = 60

# The step grows by the first factor until it has once been too long, then by the
# second: losses flatten towards a minimum.
_GROWTHS = 2.0, 1.1

# Products with the Hessian per Newton step, and the relative residual that suffices.
_CG_STEPS, _CG_TOLERANCE = 30, 1e-3

# A Newton step that raises the objective is shortened to a third, at most this often.
_SHORTENINGS = 4

# Rounds to wait, at most, after Newton steps that did not pay.
_LONGEST_WAIT = 64

# Units of rounding within which two numbers count as equal.
_SLACK = 4


class Point(NamedTuple):
    """Parameters, the gradient of the loss there, and how far they are from solving."""

    params: Tree
    grads: Tree
    objective: jax.Array
    violation: jax.Array  # The largest entry of the penalty's stationarity.
    scale: jax.Array  # What the violation is relative to.

    @property
    def relative(self) -> jax.Array:
        return _relative(self.violation, self.scale)

    def is_solved(self, tolerance: Number) -> jax.Array:
        return self.violation <= tolerance * self.scale


class Iterate(NamedTuple):
    """What FISTA carries from step to step."""

    params: Tree
    ahead: Tree  # The extrapolated parameters.
    momentum: jax.Array
    step: jax.Array
    growth: jax.Array


class Progress(NamedTuple):
    """What the rounds carry."""

    iterate: Iterate
    last: Point
    best: Point
    steps: jax.Array
    stalled: jax.Array  # Rounds without progress.
    wait: jax.Array  # Rounds until the next Newton step,
    next_wait: jax.Array  # and the wait if that one does not pay.


class Solution(NamedTuple):
    """The best point found, the step there, the number of steps and why they ended."""

    point: Point
    step: jax.Array
    steps: jax.Array
    reason: jax.Array


def solve(
    loss: Callable[[Tree], jax.Array],
    penalty: Penalty,
    params: Tree,
    tolerance: Number,
    max_steps: Number,
) -> Solution:
    """Minimises loss + penalty until the violation is at most tolerance * scale."""
    problem = Problem(loss, penalty, params, tolerance, max_steps)
    one = jnp.ones_like(problem.least_scale)
    nowhere = Point(params, params, one * jnp.inf, one * jnp.inf, one)
    zero = jnp.zeros((), jnp.int32)
    first = Progress(
        iterate=Iterate(params, params, one, one, one * _GROWTHS[0]),
        last=nowhere,
        best=nowhere,
        steps=zero,
        stalled=zero,
        wait=zero + 1,
        next_wait=zero + 1,
    )

    def goes_on(now: Progress) -> jax.Array:
        return (
            ~now.best.is_solved(tolerance)
            & (now.steps < problem.max_steps)
            & (now.stalled < _PATIENCE)
            & ~jnp.isnan(now.last.violation)
        )

    end = jax.lax.while_loop(goes_on, functools.partial(_round, problem), first)
    is_finite = jnp.isfinite(end.best.objective) & ~jnp.isnan(end.last.violation)
    reason = jnp.where(end.stalled >= _PATIENCE, PRECISION, MAX_STEPS)
    reason = jnp.where(end.best.is_solved(tolerance), CONVERGED, reason)
    reason = jnp.where(is_finite, reason, NOT_FINITE)
    reason = reason.astype(jnp.int32)
    return Solution(end.best, end.iterate.step, end.steps, reason)


class HasNewton(Protocol):
    """The parts of a problem that a Newton step reads."""

    penalty: Penalty

    def grad(self, params: Tree, /) -> Tree: ...

    def at(self, params: Tree, /) -> Point: ...


class Problem:
    """Loss and penalty, and when they count as solved."""

    def __init__(
        self,
        loss: Callable[[Tree], jax.Array],
        penalty: Penalty,
        params: Tree,
        tolerance: Number,
        max_steps: Number,
    ) -> None:
        self.loss, self.penalty, self.grad = loss, penalty, jax.grad(loss)
        self.tolerance = tolerance
        self.max_steps = jnp.asarray(max_steps, jnp.int32)
        # From parameters where the gradient is large for the problem itself: at zero,
        # or where that is a saddle point, as in networks, at the start.
        points = jax.tree.map(lambda x: jnp.stack([jnp.zeros_like(x), x]), params)
        at_zero, at_start = jax.lax.map(
            lambda x: largest_pull(penalty, self.grad(x)), points
        )
        is_usable = (at_zero > 0) & jnp.isfinite(at_zero)
        self.least_scale = least_scale(jnp.where(is_usable, at_zero, at_start))

    def at(self, params: Tree) -> Point:
        loss, grads = jax.value_and_grad(self.loss)(params)
        return point_at(self.penalty, params, loss, grads, self.least_scale)


def point_at(
    penalty: Penalty,
    params: Tree,
    loss: jax.Array,
    grads: Tree,
    least_scale: jax.Array,
) -> Point:
    """The point at `params`, where the loss has this value and these gradients."""
    value = penalty.value(params).astype(loss.dtype)
    violation = largest(jax.tree.leaves(penalty.stationarity(params, grads)))
    # Off a constraint's set nothing is solved.
    violation = jnp.where(value == jnp.inf, jnp.inf, violation)
    scale = jnp.maximum(largest_pull(penalty, grads), least_scale)
    dtype = least_scale.dtype
    numbers = (x.astype(dtype) for x in (loss + value, violation, scale))
    return Point(params, grads, *numbers)


def least_scale(largest_gradient: jax.Array) -> jax.Array:
    """A thousandth of the largest gradient, in float32 a hundredth.

    Gradients round by about a unit of that, and the tolerance must lie above it.
    """
    is_double = jnp.finfo(largest_gradient.dtype).bits == 64
    return (1e-3 if is_double else 1e-2) * largest_gradient


def relative_stationarity(penalty: Penalty, params: Tree, grads: Tree) -> jax.Array:
    """The largest distance to stationarity, relative to the largest penalised gradient.

    At a solution with an active entry of L1 that gradient is the strength.
    """
    violation = largest(jax.tree.leaves(penalty.stationarity(params, grads)))
    return _relative(violation, largest_pull(penalty, grads))


def _relative(violation: jax.Array, scale: jax.Array) -> jax.Array:
    return violation / jnp.where(scale > 0, scale, 1)


def largest_pull(penalty: Penalty, grads: Tree) -> jax.Array:
    """The largest gradient of a penalised entry."""
    leaves = jax.tree.leaves(grads)
    return largest([jnp.abs(leaves[i]) for i in Leaves(penalty, grads).penalised])


def largest(leaves: list[jax.Array]) -> jax.Array:
    """The largest entry of all leaves, 0 without entries."""
    sizes = [jnp.max(leaf, initial=0.0) for leaf in leaves]
    # A zero to start from would be of float64 where that is on.
    return functools.reduce(jnp.maximum, sizes) if sizes else jnp.zeros(())


def select(condition: jax.Array, if_true: Tree, if_false: Tree) -> Tree:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), if_true, if_false)


def _round(problem: Problem, now: Progress) -> Progress:
    """A Newton step if one is due, then gradient steps."""
    iterate = now.iterate
    point = problem.at(iterate.params)
    is_due = (now.wait == 0) & ~point.is_solved(problem.tolerance)
    newer = jax.lax.cond(
        is_due, lambda: newton(problem, point, iterate.step), lambda: point
    )
    is_taken = is_due & is_better(newer, point)
    newer = select(is_taken, newer, point)
    # It has to bring more than the gradient steps before it, in one of two measures.
    pays = newer.violation * now.last.violation < point.violation**2
    pays |= point.objective - newer.objective > now.last.objective - point.objective
    pays &= is_taken
    restarted = Iterate(
        newer.params, newer.params, jnp.ones_like(iterate.momentum), *iterate[3:]
    )
    count = jnp.minimum(_ROUND, problem.max_steps - now.steps)
    count = jnp.where(newer.is_solved(problem.tolerance), 0, count)
    iterate = jax.lax.fori_loop(
        jnp.zeros_like(count),
        count,
        lambda _, iterate: _fista(problem, iterate),
        select(is_taken, restarted, iterate),
    )
    slack = _rounding(now.best.objective)
    falls = newer.objective < now.best.objective - slack
    share = now.best.violation * newer.scale
    nears = newer.violation * now.best.scale < 0.9 * share
    is_best = newer.violation * now.best.scale < share
    is_best |= ~jnp.isfinite(now.best.objective)
    doubled = jnp.minimum(2 * now.next_wait, _LONGEST_WAIT)
    return Progress(
        iterate=iterate,
        last=newer,
        best=select(is_best, newer, now.best),
        steps=now.steps + count + is_taken,
        stalled=jnp.where(falls | nears, 0, now.stalled + 1),
        wait=jnp.where(
            is_due,
            jnp.where(pays, 0, now.next_wait),
            jnp.maximum(now.wait - 1, 0),
        ),
        next_wait=jnp.where(is_due, jnp.where(pays, 1, doubled), now.next_wait),
    )


def _rounding(objective: jax.Array) -> jax.Array:
    slack = _SLACK * jnp.finfo(objective.dtype).eps * jnp.abs(objective)
    return jnp.where(jnp.isfinite(slack), slack, 0)


def is_better(newer: Point, point: Point) -> jax.Array:
    slack = _rounding(point.objective)
    falls = newer.objective < point.objective - slack
    is_level = newer.objective <= point.objective + slack
    return falls | (is_level & (newer.violation < point.violation))


def _fista(problem: Problem, now: Iterate) -> Iterate:
    """One step from the extrapolated parameters, as long as the curvature allows."""
    slopes = problem.grad(now.ahead)
    rounding = _SLACK * jnp.finfo(now.step.dtype).eps * optax.tree.norm(slopes)

    def attempt(
        carry: tuple[Tree, jax.Array, jax.Array, jax.Array],
    ) -> tuple[Tree, jax.Array, jax.Array, jax.Array]:
        _, step, count, _ = carry
        step = jnp.where(count > 0, step / 2, step)
        start = optax.tree.add_scale(now.ahead, -step, slopes)
        new = problem.penalty.prox(start, step)
        move = optax.tree.sub(new, now.ahead)
        change = optax.tree.sub(problem.grad(new), slopes)
        # By gradients, since float32 does not resolve the fall of the loss.
        bend, length = optax.tree.vdot(change, move), optax.tree.norm(move)
        is_short = bend <= length**2 / step + rounding * length
        return new, step, count + 1, is_short & jnp.isfinite(length)

    zero = jnp.zeros((), jnp.int32)
    new, step, count, is_short = jax.lax.while_loop(
        lambda carry: ~carry[3] & (carry[2] <= _HALVINGS),
        attempt,
        (now.params, now.step, zero, zero > 0),
    )
    new = select(is_short, new, now.params)
    change = optax.tree.sub(new, now.params)
    is_uphill = optax.tree.vdot(optax.tree.sub(now.ahead, new), change) > 0
    momentum = jnp.where(is_uphill, 1, (1 + jnp.sqrt(1 + 4 * now.momentum**2)) / 2)
    share = jnp.where(is_uphill, 0, (now.momentum - 1) / momentum)
    ahead = optax.tree.add_scale(new, share, change)
    growth = jnp.where(count > 1, _GROWTHS[1], now.growth)
    return Iterate(new, ahead, momentum, growth * step, growth)


def newton(problem: HasNewton, point: Point, step: jax.Array) -> Point:
    """A Newton step on the normal map, shortened while the objective rises."""
    latent = optax.tree.add_scale(point.params, -step, point.grads)
    map_ = linearize(problem.grad, problem.penalty, latent, step)
    right = optax.tree.scale(-step, map_.jacobian(map_.residual))
    inner = conjugate_gradients(map_.system, right, _CG_TOLERANCE, _CG_STEPS)
    tangent = map_.jacobian(inner)
    pull = optax.tree.add(map_.residual, map_.hessian(tangent))
    direction = optax.tree.add_scale(tangent, -step, pull)

    def attempt(carry: tuple[Point, jax.Array]) -> tuple[Point, jax.Array]:
        _, count = carry
        share = (1 / 3) ** count.astype(step.dtype)
        moved = optax.tree.add_scale(latent, share, direction)
        return problem.at(problem.penalty.prox(moved, step)), count + 1

    worst = point._replace(objective=jnp.full_like(point.objective, jnp.inf))
    return jax.lax.while_loop(
        lambda carry: ~is_better(carry[0], point) & (carry[1] <= _SHORTENINGS),
        attempt,
        (worst, jnp.zeros((), jnp.int32)),
    )[0]
