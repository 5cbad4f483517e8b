"""Least squares with a penalty per coefficient: solve on few features, look at all.

Each round adds the features that are furthest from stationary to a working set and
solves the problem of these by their Gram matrix; it ends when no feature outside is off
by more than the tolerance. A round costs one product with all the data, however many
steps it takes inside. The set is held in buffers of fixed length; products run on the
smallest of a few sizes that holds the rows in use.

Reference: Massias, Gramfort and Salmon 2018, Celer: a fast solver for the lasso with
dual extrapolation (the working sets, without the extrapolation).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Leafwise
from jaxreg._core.penalty import Facts, Number, Penalty, Tree
from jaxreg._core.pytree import derived, pytree_dataclass, static
from jaxreg.solve import _general
from jaxreg.solve._general import Point, Solution
from jaxreg.solve._linear import (
    COEFFICIENTS,
    INTERCEPT,
    Linear,
    alone_on_coefficients,
)

# The most features of a working set: their Gram matrix takes 32 MB in float64.
_CAPACITY = 2048

# The sizes of products besides: unused rows of a size cost time, each size compiling.
_SIZES = (256, 1024)

# The features that are added at once.
_CHUNK = 128

# The most rounds, and those without progress.
_ROUNDS, _PATIENCE = 200, 3

# The tolerance inside, relative to the violation outside: what is solved tighter is
# lost on features that leave the set again.
_SHARE = 0.1


class Memory(NamedTuple):
    """The working set, its rows of the data and their Gram matrix."""

    features: jax.Array  # (capacity,); past the last feature where not in use.
    rows: jax.Array  # (capacity, samples)
    gram: jax.Array  # (capacity, capacity)
    in_use: jax.Array


class _Progress(NamedTuple):
    """What the rounds carry."""

    point: Point
    memory: Memory
    step: jax.Array
    steps: jax.Array
    rounds: jax.Array
    stalled: jax.Array  # Rounds that added nothing and brought nothing.
    is_full: jax.Array


def empty_memory(problem: Linear, penalty: Penalty) -> Memory | None:
    """No working set yet; None where `solve_linear` needs none."""
    return None if _alone(problem, penalty) is None else _Work.memory(problem)


def solve_linear(
    problem: Linear,
    penalty: Penalty,
    params: Tree,
    tolerance: Number,
    max_steps: Number,
    memory: Memory | None = None,
) -> tuple[Solution, Memory | None]:
    """Solves a linear problem, centred if it has an intercept, the faster way it can.

    Squares of one output are solved on a part of the features if the penalty is one
    per coefficient, everything else as any other loss. The working set serves the next
    strength or tolerance, for the same columns.
    """
    alone = _alone(problem, penalty)
    if alone is None:
        arguments = (problem.loss, penalty, params, tolerance, max_steps)
        return _general.solve(*arguments), None
    if memory is None:
        memory = _Work.memory(problem)
    work = _Work(problem, alone, tolerance, max_steps)
    end = jax.lax.while_loop(work.goes_on, work.round, work.start(params, memory))
    reason = jnp.where(end.steps >= max_steps, _general.MAX_STEPS, _general.PRECISION)
    reason = jnp.where(end.point.is_solved(tolerance), _general.CONVERGED, reason)
    is_finite = jnp.isfinite(end.point.violation) & jnp.isfinite(end.point.objective)
    reason = jnp.where(is_finite, reason, _general.NOT_FINITE).astype(jnp.int32)
    found = Solution(end.point, end.step, end.steps, reason)
    if not work.may_overflow:
        return found, end.memory

    def with_all_features() -> Solution:
        left = max_steps - found.steps
        start = found.point.params
        rest = _general.solve(problem.loss, penalty, start, tolerance, left)
        return rest._replace(steps=rest.steps + found.steps)

    return jax.lax.cond(end.is_full, with_all_features, lambda: found), end.memory


def _alone(problem: Linear, penalty: Penalty) -> Penalty | None:
    """The penalty of the coefficients, if a part of them can be solved for."""
    alone = alone_on_coefficients(penalty)
    is_square = problem.family == "gaussian" and jnp.ndim(problem.y) == 1
    if alone is None or not is_square or not alone.facts.is_separable:
        return None
    return alone


class _Work:
    """One problem, with the parts of it that all rounds share."""

    def __init__(
        self, problem: Linear, penalty: Penalty, tolerance: Number, max_steps: Number
    ) -> None:
        self.problem, self.penalty = problem, penalty
        self.tolerance = tolerance
        self.max_steps = jnp.asarray(max_steps, jnp.int32)
        self.count = problem.x.shape[1]
        self.may_overflow = self.count > _CAPACITY
        at_zero = self._grads(problem.zeros(), problem.predict(problem.zeros()))
        largest = jnp.max(jnp.abs(at_zero[COEFFICIENTS]), initial=0.0)
        self.least_scale = _general.least_scale(largest)

    @staticmethod
    def memory(problem: Linear) -> Memory:
        samples, count = problem.x.shape
        # With room for a chunk beside all features.
        capacity = min(count, _CAPACITY) + min(count, _CHUNK)
        return Memory(
            features=jnp.full(capacity, count, jnp.int32),
            rows=jnp.zeros((capacity, samples), problem.x.dtype),
            gram=jnp.zeros((capacity, capacity), problem.x.dtype),
            in_use=jnp.zeros((), jnp.int32),
        )

    def goes_on(self, now: _Progress) -> jax.Array:
        return (
            ~now.point.is_solved(self.tolerance)
            & (now.steps < self.max_steps)
            & (now.rounds < _ROUNDS)
            & (now.stalled < _PATIENCE)
            & ~now.is_full
            & jnp.isfinite(now.point.violation)
        )

    def start(self, params: Tree, memory: Memory) -> _Progress:
        if INTERCEPT in params:
            # The best one whatever the coefficients, since columns are centred.
            params = {**params, INTERCEPT: self.problem.mean_residual()}
        zero = jnp.zeros((), jnp.int32)
        return _Progress(
            point=self._at(params, self.problem.predict(params)),
            memory=memory,
            step=jnp.ones((), self.problem.x.dtype),
            steps=zero,
            rounds=zero,
            stalled=zero,
            is_full=zero > 0,
        )

    def round(self, now: _Progress) -> _Progress:
        """Adds the worst features, solves on the set, and looks at all features."""
        memory, is_full = self._grown(now.memory, now.point)
        tolerance = jnp.maximum(_SHARE * now.point.relative, self.tolerance / 2)
        inner = self._solved(now, memory, tolerance)
        members = inner.point.params
        coefficients = jnp.zeros(self.count, members.dtype)
        coefficients = coefficients.at[memory.features].set(members, mode="drop")
        params = {**now.point.params, COEFFICIENTS: coefficients}
        point = self._at(params, self.problem.predict(params))
        is_stuck = (memory.in_use == now.memory.in_use) & (
            point.violation > 0.9 * now.point.violation
        )
        return _Progress(
            point=_general.select(is_full, now.point, point),
            memory=memory,
            step=inner.step,
            steps=now.steps + inner.steps,
            rounds=now.rounds + 1,
            stalled=jnp.where(is_stuck, now.stalled + 1, 0),
            is_full=is_full,
        )

    def _solved(self, now: _Progress, memory: Memory, tolerance: jax.Array) -> Solution:
        """The solution on the working set."""
        penalty = self.penalty
        if any(jnp.ndim(number) for number in jax.tree.leaves(penalty)):
            penalty = _Restricted(penalty, memory.features, self.count)
        start = _members(now.point.params[COEFFICIENTS], memory.features)
        slopes = _members(now.point.grads[COEFFICIENTS], memory.features)
        slopes = slopes - _gram_product(memory, start)
        left = self.max_steps - now.steps
        loss = functools.partial(_quadratic, memory, slopes)
        return _general.solve(loss, penalty, start, tolerance, left)

    def _at(self, params: Tree, predictor: jax.Array) -> Point:
        grads = self._grads(params, predictor)
        coefficients = params[COEFFICIENTS]
        pulls = self.penalty.stationarity(coefficients, grads[COEFFICIENTS])
        free = [jnp.abs(grads[INTERCEPT])] if INTERCEPT in params else []
        value = self.penalty.value(coefficients).astype(predictor.dtype)
        violation = _general.largest([pulls, *free])
        scale = _general.largest([jnp.abs(grads[COEFFICIENTS])])
        return Point(
            params=params,
            grads=grads,
            objective=self.problem.mean_loss(predictor) + value,
            violation=jnp.where(value == jnp.inf, jnp.inf, violation),
            scale=jnp.maximum(scale, self.least_scale),
        )

    def _grads(self, params: Tree, predictor: jax.Array) -> Tree:
        slopes = jax.grad(self.problem.mean_loss)(predictor)
        grads = {COEFFICIENTS: slopes @ self.problem.x}
        return grads | ({INTERCEPT: jnp.sum(slopes)} if INTERCEPT in params else {})

    def _grown(self, memory: Memory, point: Point) -> tuple[Memory, jax.Array]:
        """The set with the worst features outside, and whether there was no room."""
        coefficients, grads = point.params[COEFFICIENTS], point.grads[COEFFICIENTS]
        pulls = self.penalty.stationarity(coefficients, grads)
        pulls = jnp.where(pulls > self.tolerance * point.scale / 2, pulls, 0)
        # What is not zero must be inside.
        wanted = jnp.where(coefficients != 0, jnp.inf, pulls)
        room = len(memory.features) - min(_CHUNK, self.count)
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
        at, chunk = memory.in_use, min(_CHUNK, self.count)
        worst, new = jax.lax.top_k(wanted, chunk)
        new = jnp.where(worst > 0, new, self.count).astype(jnp.int32)
        rows = _members(self.problem.x, new, axis=1).T
        put = jax.lax.dynamic_update_slice_in_dim
        all_rows = put(memory.rows, rows, at, axis=0)
        in_use = at + jnp.sum(worst > 0, dtype=jnp.int32)
        block = self._products(rows, all_rows, in_use)
        gram = put(put(memory.gram, block, at, axis=0), block.T, at, axis=1)
        features = put(memory.features, new, at, axis=0)
        return Memory(features, all_rows, gram, in_use)

    def _products(
        self, rows: jax.Array, others: jax.Array, in_use: jax.Array
    ) -> jax.Array:
        """The weighted products of rows with those of others that are in use."""
        weighted, chunk = rows * self.problem.shares[None], len(rows)

        def add(block: jax.Array, at: jax.Array) -> jax.Array:
            part = jax.lax.dynamic_slice_in_dim(others, at, chunk, axis=0)
            product = weighted @ part.T
            return jax.lax.dynamic_update_slice_in_dim(block, product, at, axis=1)

        zeros = jnp.zeros((chunk, len(others)), rows.dtype)
        return jax.lax.while_loop(
            lambda carry: carry[1] < in_use,
            lambda carry: (add(*carry), carry[1] + chunk),
            (zeros, jnp.zeros_like(in_use)),
        )[0]


def _members(leaf: jax.Array, features: jax.Array, axis: int = 0) -> jax.Array:
    """Entries of a leaf, zero where the set is not in use."""
    return jnp.take(leaf, features, axis=axis, mode="fill", fill_value=0)


def _gram_product(memory: Memory, vector: jax.Array) -> jax.Array:
    """The product with the Gram matrix of the features in use."""
    capacity = len(vector)
    sizes = [*(size for size in _SIZES if size < capacity), capacity]

    def product(size: int) -> jax.Array:
        image = memory.gram[:size, :size] @ vector[:size]
        return jnp.pad(image, (0, capacity - size))

    level = jnp.zeros((), jnp.int32)
    for size in sizes[:-1]:
        level = level + (memory.in_use > size)
    image = jax.lax.switch(level, [functools.partial(product, n) for n in sizes])
    # Rows of features that have left.
    return jnp.where(jnp.arange(capacity) < memory.in_use, image, 0)


def _quadratic(memory: Memory, slopes: jax.Array, vector: jax.Array) -> jax.Array:
    """`v G v / 2 + v slopes`; its gradient takes one product with G and not two."""

    @jax.custom_jvp
    def value(vector: jax.Array) -> jax.Array:
        return jnp.vdot(vector, _gram_product(memory, vector) / 2 + slopes)

    @value.defjvp
    def value_jvp(
        primals: tuple[jax.Array], tangents: tuple[jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        (vector,), (tangent,) = primals, tangents
        image = _gram_product(memory, vector)
        primal = jnp.vdot(vector, image / 2 + slopes)
        return primal, jnp.vdot(image + slopes, tangent)

    return value(vector)


@pytree_dataclass
class _Restricted(Leafwise):
    """A separable penalty of all coefficients, on those of the working set."""

    penalty: Penalty = derived()
    features: jax.Array = derived()
    size: int = static()

    @property
    def facts(self) -> Facts:
        return self.penalty.facts

    def step_for(self, width: Number) -> jax.Array:
        return self.penalty.step_for(width)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return self.penalty.value(self._all(leaf))

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return _members(self.penalty.prox(self._all(leaf), step), self.features)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        pulls = self.penalty.stationarity(self._all(leaf), self._all(grad))
        return _members(pulls, self.features)

    def _all(self, leaf: jax.Array) -> jax.Array:
        return jnp.zeros(self.size, leaf.dtype).at[self.features].set(leaf, mode="drop")
