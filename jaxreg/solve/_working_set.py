"""Least squares with a penalty per coefficient: solve on few features, look at all.

Each round adds the features that are furthest from stationary to a working set and
solves the problem of these by their Gram matrix; it ends when no feature outside is off
by more than the tolerance. A round costs one product with all the data. The set is
held in buffers of fixed length; products run on the smallest of a few sizes that holds
the features in use.

On the set, cyclic coordinate descent leads, which minimises over one coefficient after
the other and so never raises the objective; Newton steps on the normal map finish, if
the penalty is convex.

References: Massias, Gramfort and Salmon 2018, Celer: a fast solver for the lasso with
dual extrapolation (the working sets, without the extrapolation); Friedman, Hastie and
Tibshirani 2010 (coordinate descent with covariances).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxreg._core.penalty import Number, Penalty, Tree
from jaxreg._core.pytree import is_array
from jaxreg.solve import _general
from jaxreg.solve._general import Point, Solution
from jaxreg.solve._linear import (
    COEFFICIENTS,
    INTERCEPT,
    Linear,
    alone_on_coefficients,
)

# The most features of a working set: their Gram matrix takes 32 MB in float64. A set
# that is made for one fit starts with fewer, since making the buffers takes time.
CAPACITY, FIRST_CAPACITY = 2048, 512

# The features that are added at once.
_CHUNK = 64

# The most rounds, and those without progress.
_ROUNDS, _PATIENCE = 200, 3

# The tolerance inside, relative to the violation outside: what is solved tighter is
# lost on features that leave the set again.
_SHARE = 0.1

# Passes of coordinate descent between two looks at the stationarity, and such blocks
# before Newton's method is tried: the support is not known before.
_EPOCHS, _FIRST_BLOCKS = 5, 2

# Blocks at most, before the whole problem is looked at again.
_MOST_BLOCKS = 60

# Products run at the least of these sizes that holds the features in use.
_SIZES = (256, 1024)

Carry = TypeVar("Carry")


class Memory(NamedTuple):
    """The working set, its rows of the data and their Gram matrix."""

    features: jax.Array  # (capacity,); past the last feature where not in use.
    rows: jax.Array  # (capacity, samples)
    gram: jax.Array  # (capacity, capacity)
    in_use: jax.Array


class _Progress(NamedTuple):
    """What the rounds carry."""

    point: Point
    predictor: jax.Array
    memory: Memory
    steps: jax.Array
    rounds: jax.Array
    stalled: jax.Array  # Rounds that added nothing and brought nothing.
    is_full: jax.Array


class _Inner(NamedTuple):
    """What the solver on the set carries."""

    point: Point
    steps: jax.Array


_Descent = tuple[jax.Array, jax.Array]
"""What coordinate descent carries: coefficients of the set, and the gradient there."""


def empty_memory(problem: Linear, penalty: Penalty) -> Memory | None:
    """No working set yet; None where `solve_linear` needs none."""
    return None if _alone(problem, penalty) is None else _empty(problem, CAPACITY)


def _empty(problem: Linear, capacity: int) -> Memory:
    count, samples = problem.columns.shape
    # With room for a chunk beside all features.
    capacity = min(count, capacity) + min(count, _CHUNK)
    dtype = problem.columns.dtype
    return Memory(
        features=jnp.full(capacity, count, jnp.int32),
        rows=jnp.zeros((capacity, samples), dtype),
        gram=jnp.zeros((capacity, capacity), dtype),
        in_use=jnp.zeros((), jnp.int32),
    )


def solve_linear(
    problem: Linear,
    penalty: Penalty,
    params: Tree,
    tolerance: Number,
    max_steps: Number,
    memory: Memory | None = None,
    capacity: int = CAPACITY,
) -> tuple[Solution, Memory | None]:
    """Solves a linear problem, centred if it has an intercept, the faster way it can.

    Squares of one output are solved on a part of the features if the penalty is one
    per coefficient, everything else as any other loss. The working set serves the next
    strength or tolerance, for the same columns. What outgrows a smaller `capacity` than
    the largest ends with the reason CAPACITY.
    """
    alone = _alone(problem, penalty)
    if alone is None:
        arguments = (problem.loss, penalty, params, tolerance, max_steps)
        return _general.solve(*arguments), None
    if memory is None:
        memory = _empty(problem, capacity)
    work = _Work(problem, penalty, alone, tolerance, max_steps)
    end = jax.lax.while_loop(work.goes_on, work.round, work.start(params, memory))
    solution = Solution(end.point, work.step(end.memory), end.steps, work.reason(end))
    if capacity < CAPACITY or len(problem.columns) <= CAPACITY:
        return solution, end.memory

    def with_all_features() -> Solution:
        left = max_steps - solution.steps
        start = solution.point.params
        rest = _general.solve(problem.loss, penalty, start, tolerance, left)
        return rest._replace(steps=rest.steps + solution.steps)

    return jax.lax.cond(end.is_full, with_all_features, lambda: solution), end.memory


def _alone(problem: Linear, penalty: Penalty) -> Penalty | None:
    """The penalty of the coefficients, if a part of them can be solved for."""
    alone = alone_on_coefficients(penalty)
    is_square = problem.family == "gaussian" and jnp.ndim(problem.y) == 1
    if alone is None or not is_square or not alone.facts.is_separable:
        return None
    return alone if can_restrict(alone) else None


class _Work:
    """One problem, with the parts of it that all rounds share."""

    def __init__(
        self,
        problem: Linear,
        penalty: Penalty,
        alone: Penalty,
        tolerance: Number,
        max_steps: Number,
    ) -> None:
        self.problem, self.penalty, self.alone = problem, penalty, alone
        self.tolerance = tolerance
        self.max_steps = jnp.asarray(max_steps, jnp.int32)
        self.count = len(problem.columns)
        self.chunk = min(_CHUNK, self.count)
        self.at_zero = jnp.zeros_like(problem.columns[0]) + problem.offset
        _, grads = self._loss_and_grads(problem.zeros(), self.at_zero)
        largest = jnp.max(jnp.abs(grads[COEFFICIENTS]), initial=0.0)
        self.least_scale = _general.least_scale(largest)

    def goes_on(self, now: _Progress) -> jax.Array:
        return (
            ~now.point.is_solved(self.tolerance)
            & (now.steps < self.max_steps)
            & (now.rounds < _ROUNDS)
            & (now.stalled < _PATIENCE)
            & ~now.is_full
            & jnp.isfinite(now.point.violation)
        )

    def reason(self, end: _Progress) -> jax.Array:
        is_out = end.steps >= self.max_steps
        reason = jnp.where(is_out, _general.MAX_STEPS, _general.PRECISION)
        reason = jnp.where(end.is_full, _general.CAPACITY, reason)
        is_solved = end.point.is_solved(self.tolerance)
        reason = jnp.where(is_solved, _general.CONVERGED, reason)
        point = end.point
        is_finite = jnp.isfinite(point.violation) & jnp.isfinite(point.objective)
        return jnp.where(is_finite, reason, _general.NOT_FINITE).astype(jnp.int32)

    @staticmethod
    def step(memory: Memory) -> jax.Array:
        """The step of coordinate descent at the largest column."""
        largest = jnp.max(jnp.diag(memory.gram))
        return 1 / jnp.where(largest > 0, largest, 1)

    def start(self, params: Tree, memory: Memory) -> _Progress:
        if INTERCEPT in params:
            # The best one whatever the coefficients, since columns are centred.
            params = {**params, INTERCEPT: self.problem.mean_residual()}
        # A constraint holds from the start.
        start = params[COEFFICIENTS]
        is_off = self.alone.value(start) == jnp.inf
        nearest = self.alone.prox(start, jnp.ones((), start.dtype))
        params = {**params, COEFFICIENTS: jnp.where(is_off, nearest, start)}
        zero = jnp.zeros((), jnp.int32)
        shift = params.get(INTERCEPT, jnp.zeros((), self.at_zero.dtype))
        predictor = jax.lax.cond(
            jnp.any(params[COEFFICIENTS] != 0),
            lambda: self.problem.predict(params),
            lambda: self.at_zero + shift,
        )
        return _Progress(
            point=self._at(params, predictor),
            predictor=predictor,
            memory=memory,
            steps=zero,
            rounds=zero,
            stalled=zero,
            is_full=zero > 0,
        )

    def round(self, now: _Progress) -> _Progress:
        """Adds the worst features, solves on the set, and looks at all features."""
        memory, is_full = self._grown(now.memory, now.point)
        start = _members(now.point.params[COEFFICIENTS], memory.features)
        members, steps = self._solved(now, memory, start)
        coefficients = now.point.params[COEFFICIENTS]
        coefficients = coefficients.at[memory.features].set(members, mode="drop")
        move = members - start

        def add(predictor: jax.Array, at: jax.Array) -> jax.Array:
            return predictor + self._part(move, at) @ self._part(memory.rows, at)

        predictor = self._by_chunks(memory.in_use, add, now.predictor)
        point = self._at({**now.point.params, COEFFICIENTS: coefficients}, predictor)
        is_stuck = (memory.in_use == now.memory.in_use) & (
            point.violation > 0.9 * now.point.violation
        )
        return _Progress(
            point=_general.select(is_full, now.point, point),
            predictor=jnp.where(is_full, now.predictor, predictor),
            memory=memory,
            steps=now.steps + jnp.where(is_full, 0, steps),
            rounds=now.rounds + 1,
            stalled=jnp.where(is_stuck, now.stalled + 1, 0),
            is_full=is_full,
        )

    def _solved(
        self, now: _Progress, memory: Memory, start: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The solution on the working set, and the number of steps."""
        subproblem = _Subproblem(self.alone, memory, start, now.point)
        relative = jnp.maximum(_SHARE * now.point.relative, self.tolerance / 2)
        most = jnp.minimum(self.max_steps - now.steps, _EPOCHS * _MOST_BLOCKS)

        def goes_on(inner: _Inner) -> jax.Array:
            return ~inner.point.is_solved(relative) & (inner.steps < most)

        def block(inner: _Inner) -> _Inner:
            count = jnp.minimum(_EPOCHS, most - inner.steps)
            point = subproblem.descended(inner.point, count)
            steps = inner.steps + count
            is_due = ~point.is_solved(relative) & (steps > _EPOCHS * _FIRST_BLOCKS)
            if not self.alone.facts.is_convex:
                return _Inner(point, steps)
            newer = jax.lax.cond(
                is_due,
                lambda: _general.newton(subproblem, point, self.step(memory)),
                lambda: point,
            )
            is_taken = is_due & _general.is_better(newer, point)
            return _Inner(_general.select(is_taken, newer, point), steps + is_due)

        zero = jnp.zeros((), jnp.int32)
        end = jax.lax.while_loop(goes_on, block, _Inner(subproblem.at(start), zero))
        return end.point.params, end.steps

    def _at(self, params: Tree, predictor: jax.Array) -> Point:
        loss, grads = self._loss_and_grads(params, predictor)
        return _general.point_at(self.penalty, params, loss, grads, self.least_scale)

    def _loss_and_grads(
        self, params: Tree, predictor: jax.Array
    ) -> tuple[jax.Array, Tree]:
        loss, slopes = jax.value_and_grad(self.problem.mean_loss)(predictor)
        grads = {COEFFICIENTS: self.problem.columns @ slopes}
        if INTERCEPT in params:
            grads[INTERCEPT] = jnp.sum(slopes)
        return loss, grads

    def _grown(self, memory: Memory, point: Point) -> tuple[Memory, jax.Array]:
        """The set with the worst features outside, and whether there was no room."""
        coefficients, grads = point.params[COEFFICIENTS], point.grads[COEFFICIENTS]
        pulls = self.alone.stationarity(coefficients, grads)
        pulls = jnp.where(pulls > self.tolerance * point.scale / 2, pulls, 0)
        # What is not zero must be inside.
        wanted = jnp.where(coefficients != 0, jnp.inf, pulls)
        room = len(memory.features) - self.chunk
        # The support alone stays where there is no room for more.
        is_tight = memory.in_use > room
        memory = memory._replace(
            features=jnp.where(is_tight, self.count, memory.features),
            in_use=jnp.where(is_tight, 0, memory.in_use),
        )

        def outside(memory: Memory) -> jax.Array:
            return wanted.at[memory.features].set(0, mode="drop")

        def grow(carry: tuple[Memory, jax.Array]) -> tuple[Memory, jax.Array]:
            grown = self._with_worst(carry[0], outside(carry[0]))
            return grown, jnp.any(jnp.isinf(outside(grown)))

        memory, is_left = jax.lax.while_loop(
            lambda carry: carry[1] & (carry[0].in_use <= room),
            grow,
            (memory, jnp.ones((), bool)),
        )
        # The support alone fills it, or does not fit.
        return memory, is_left | (is_tight & (memory.in_use > room))

    def _with_worst(self, memory: Memory, wanted: jax.Array) -> Memory:
        at, zero = memory.in_use, jnp.int32(0)
        worst, new = jax.lax.top_k(wanted, self.chunk)
        new = jnp.where(worst > 0, new, self.count).astype(jnp.int32)
        rows = _members(self.problem.columns, new)
        all_rows = jax.lax.dynamic_update_slice(memory.rows, rows, (at, zero))
        in_use = at + jnp.sum(worst > 0, dtype=jnp.int32)
        weighted = rows * self.problem.shares[None]

        def add(gram: jax.Array, low: jax.Array) -> jax.Array:
            product = weighted @ self._part(all_rows, low).T
            gram = jax.lax.dynamic_update_slice(gram, product, (at, low))
            return jax.lax.dynamic_update_slice(gram, product.T, (low, at))

        gram = self._by_chunks(in_use, add, memory.gram)
        features = jax.lax.dynamic_update_slice(memory.features, new, (at,))
        return Memory(features, all_rows, gram, in_use)

    def _part(self, array: jax.Array, at: jax.Array) -> jax.Array:
        """A chunk of the rows of an array."""
        return jax.lax.dynamic_slice_in_dim(array, at, self.chunk)

    def _by_chunks(
        self, in_use: jax.Array, add: Callable[[Carry, jax.Array], Carry], zero: Carry
    ) -> Carry:
        """Adds up chunks of what is in use; the last may reach beyond."""
        return jax.lax.while_loop(
            lambda carry: carry[1] < in_use,
            lambda carry: (add(*carry), carry[1] + self.chunk),
            (zero, jnp.zeros_like(in_use)),
        )[0]


class _Subproblem:
    """The quadratic of a working set, with the penalty of its features."""

    def __init__(
        self, alone: Penalty, memory: Memory, start: jax.Array, point: Point
    ) -> None:
        self.alone, self.memory, self.scale = alone, memory, point.scale
        self.penalty = restricted(alone, memory.features)
        self.is_used = jnp.arange(len(start)) < memory.in_use
        slopes = _members(point.grads[COEFFICIENTS], memory.features)
        self.shift = jnp.where(self.is_used, slopes - self._gram(start), 0)

    def grad(self, members: jax.Array) -> jax.Array:
        return self._gram(members) + self.shift

    def at(self, members: jax.Array) -> Point:
        return self._at(members, self.grad(members))

    def _at(self, members: jax.Array, grads: jax.Array) -> Point:
        loss = jnp.vdot(members, grads + self.shift) / 2
        return _general.point_at(self.penalty, members, loss, grads, self.scale)

    def descended(self, point: Point, epochs: jax.Array) -> Point:
        """The point after passes of coordinate descent."""
        members, grads = self._sized(
            lambda size: self._descent(size, epochs, (point.params, point.grads))
        )
        return self._at(members, grads)

    def _descent(self, size: int, epochs: jax.Array, first: _Descent) -> _Descent:
        gram, features = self.memory.gram, self.memory.features
        curvature = jnp.diag(gram)
        # A column of zeros has no curvature, and no gradient either.
        steps = 1 / jnp.where(curvature > 0, curvature, 1)

        def descend(j: jax.Array, carry: _Descent) -> _Descent:
            members, grads = carry
            coordinate = restricted(self.alone, features[j])
            new = coordinate.prox(members[j] - steps[j] * grads[j], steps[j])
            move = new - members[j]
            # Most of what is 0 does not move.
            return jax.lax.cond(
                move == 0,
                lambda: carry,
                lambda: (members.at[j].set(new), grads + move * gram[j, :size]),
            )

        def epoch(_: jax.Array, carry: _Descent) -> _Descent:
            return jax.lax.fori_loop(jnp.int32(0), self.memory.in_use, descend, carry)

        first = first[0][:size], first[1][:size]
        return jax.lax.fori_loop(jnp.zeros_like(epochs), epochs, epoch, first)

    def _gram(self, members: jax.Array) -> jax.Array:
        """The product with the Gram matrix of the features in use."""
        gram = self.memory.gram
        return self._sized(lambda size: gram[:size, :size] @ members[:size])

    def _sized(self, of_size: Callable[[int], Tree]) -> Tree:
        """Vectors at the least size that holds the features in use, 0 elsewhere."""
        capacity, in_use = len(self.is_used), self.memory.in_use
        sizes = [*(size for size in _SIZES if size < capacity), capacity]

        def whole(size: int) -> Tree:
            return jax.tree.map(
                lambda x: jnp.pad(x, (0, capacity - size)), of_size(size)
            )

        level = jnp.zeros((), jnp.int32)
        for size in sizes[:-1]:
            level = level + (in_use > size)
        vectors = jax.lax.switch(level, [functools.partial(whole, n) for n in sizes])
        # Rows beyond hold features that have left.
        return jax.tree.map(lambda x: jnp.where(self.is_used, x, 0), vectors)


def _members(leaf: jax.Array, features: jax.Array) -> jax.Array:
    """Entries of a leaf, zero where the set is not in use."""
    return jnp.take(leaf, features, axis=0, mode="fill", fill_value=0)


def can_restrict(penalty: Penalty) -> bool:
    """True unless the penalty holds a tree of arrays."""
    return all(
        can_restrict(content)
        if isinstance(content, Penalty)
        else is_array(content) or not any(map(is_array, jax.tree.leaves(content)))
        for content in _fields(penalty).values()
    )


def restricted(penalty: Penalty, features: jax.Array) -> Penalty:
    """A separable penalty of all coefficients, on some of them.

    An array that a penalty holds broadcasts against the leaf: all else are numbers.
    """
    changes = {
        name: restricted(content, features)
        if isinstance(content, Penalty)
        else jnp.take(content, features, mode="clip")
        for name, content in _fields(penalty).items()
        if isinstance(content, Penalty) or is_array(content)
    }
    record: Any = penalty  # Mypy does not see that a concrete one is a dataclass.
    return dataclasses.replace(record, **changes)


def _fields(penalty: Any) -> dict[str, object]:
    names = [field.name for field in dataclasses.fields(penalty)]
    return {name: getattr(penalty, name) for name in names}
