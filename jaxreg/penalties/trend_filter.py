"""Trend filtering."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import magnitude
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Facts, Number, ratio
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.isotonic import segment_means
from jaxreg._numerics.taut_string import total_variation_prox
from jaxreg.penalties._linewise import Linewise

_MOST_ROUNDS = 5000  # Ends loops in which rounding keeps the moves above their limit.
_RELAXATION = 1.7  # ADMM converges for any below 2, and faster for some above 1.
# The weight of ADMM per unit of threshold: with a weight that is not clipped, a round
# shrinks slopes by the inverse, in units of the largest entry. It affects speed alone.
_STIFFNESS = {1: 10.0, 2: 30.0}
# The diagonals of D D', D the differences of order 1 and 2.
_DIAGONALS = {1: (2.0, -1.0, 0.0), 2: (6.0, -4.0, 1.0)}

_Solve = Callable[[jax.Array], jax.Array]
_Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]
"""Slopes, dual, gap, the largest move of a round, and the number of rounds."""
_Pair = tuple[jax.Array, jax.Array]
"""Two numbers per line, of the last step or of the last two steps."""


@pytree_dataclass
class TrendFilter(Linewise):
    r"""Trend filtering, `strength * sum |(D w)_i|`, D differences of `order + 1`.

    Its prox makes lines piecewise linear (`order=1`) or quadratic (`order=2`) along an
    axis, with few knots. Use it for weights that follow a trend that bends; where they
    jump use `TotalVariation`, which is order 0. The prox is INEXACT: it iterates until
    its moves are some tens of units of rounding, and is accurate to `prox_tolerance`,
    relative to the largest entry. Kinks are therefore small rather than exactly 0, and
    it makes no zeros. The step is one number along `axis`. The subgradient is 0 where
    the differences are. bfloat16 leaves are computed in float32.

    Args:
      strength: >= 0, in units of loss per unit of weight.
      order: 1 or 2, the degree of the pieces.
      axis: the axis of the lines; other axes are independent.

    Raises:
      TypeError: `axis` is not an int.
      ValueError: `order` is not 1 or 2.

    Reference: Kim, Koh, Boyd and Gorinevsky 2009, l1 trend filtering; Ramdas and
    Tibshirani 2016, Fast and flexible ADMM algorithms for trend filtering.

    >>> import jax.numpy as jnp, jaxreg
    >>> trend = jaxreg.TrendFilter(100.0, order=1, axis=0)
    >>> trend.prox(jnp.array([0.0, 0.0, 1.0, 3.0]), step=1.0).round(2)
    Array([-0.5,  0.5,  1.5,  2.5], dtype=float32)
    """

    strength: Number
    order: int = static()
    axis: int = static()

    facts = Facts(
        prox_tolerance=1e-3, is_homogeneous=True, stationarity_kind="residual"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in _DIAGONALS:
            raise ValueError(
                f"TrendFilter: order is {shown(self.order)}; allowed: 1 or 2. Order 0 "
                "is jaxreg.TotalVariation"
            )

    def step_for(self, width: Number) -> jax.Array:
        return ratio(width, self.strength)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        kinks = magnitude(jnp.diff(leaf, n=self._depth, axis=self.axis))
        return self.strength * jnp.sum(kinks, axis=self.axis, keepdims=True)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        lines = jnp.moveaxis(leaf, self.axis, -1)
        if lines.shape[-1] <= self._depth:
            return jnp.zeros_like(leaf)
        signs = jnp.sign(jnp.diff(lines, n=self._depth))
        slope = _adjoint(signs, self._depth)
        return self.strength * jnp.moveaxis(slope, -1, self.axis)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        lines = jnp.moveaxis(leaf, self.axis, -1)
        if lines.shape[-1] <= self._depth:
            return leaf
        flat = lines.reshape(-1, lines.shape[-1])
        threshold = jnp.broadcast_to(self.strength * step, leaf.shape)
        threshold = jnp.moveaxis(threshold, self.axis, -1).reshape(flat.shape)[:, :1]
        out = _prox(flat, threshold.astype(leaf.dtype), self.order)
        return jnp.moveaxis(out.reshape(lines.shape), -1, self.axis)

    @property
    def _depth(self) -> int:
        return self.order + 1


def _adjoint(lines: jax.Array, depth: int) -> jax.Array:
    """The transpose of `jnp.diff(..., n=depth)`."""
    for _ in range(depth):
        lines = jnp.pad(lines, [(0, 0)] * (lines.ndim - 1) + [(1, 1)])
        lines = lines[..., :-1] - lines[..., 1:]
    return lines


def _prox(lines: jax.Array, threshold: jax.Array, order: int) -> jax.Array:
    """The prox of each row, differentiable while its pattern of knots is constant.

    There `dx = P (dv - (v - x) dlog t)`, with P the projection on the lines that have
    these knots and no others, and t the threshold.
    """
    moves = threshold > 0
    positive = jnp.where(moves, threshold, 1.0)
    constants = jax.lax.stop_gradient((lines, positive))
    solution, begins = _solve(*constants, order)
    subgradient = (constants[0] - solution) / constants[1]
    tangent = (lines - constants[0]) - subgradient * (positive - constants[1])
    # Declares that a projection is its own transpose: of the two functions only the
    # solve is differentiated, and the matrix does not matter.
    moved = jax.lax.custom_linear_solve(
        lambda x: x,
        tangent,
        lambda _, x: _project(x, constants[1], begins, order),
        symmetric=True,
    )
    return jnp.where(moves, solution + moved, lines)


@functools.partial(jax.jit, static_argnums=2)
def _solve(
    lines: jax.Array, threshold: jax.Array, order: int
) -> tuple[jax.Array, jax.Array]:
    """The prox, and the begin of each flat stretch of its differences of `order`."""
    scale = jnp.max(jnp.abs(lines), initial=jnp.finfo(lines.dtype).tiny)
    threshold = threshold / scale
    weight = _weight(threshold, order, lines.shape[-1])

    def shrink(slopes: jax.Array) -> jax.Array:
        return total_variation_prox(slopes, threshold / weight)[0]

    solution, slopes = _iterate(lines / scale, weight, order, shrink)
    begins = total_variation_prox(slopes, threshold / weight)[1]
    return solution * scale, begins


@functools.partial(jax.jit, static_argnums=3)
def _project(
    lines: jax.Array, threshold: jax.Array, begins: jax.Array, order: int
) -> jax.Array:
    """The nearest lines whose differences of `order` are flat on each stretch."""
    largest = jnp.max(jnp.abs(lines))
    scale = jnp.where(largest > 0, largest, 1.0)

    def shrink(slopes: jax.Array) -> jax.Array:
        return segment_means(slopes.reshape(-1), begins).reshape(slopes.shape)

    weight = _weight(threshold, order, lines.shape[-1])
    return _iterate(lines / scale, weight, order, shrink)[0] * scale


def _weight(threshold: jax.Array, order: int, size: int) -> jax.Array:
    """The weight of ADMM; thresholds that make lines of `size` straight are alike."""
    effective = jnp.minimum(threshold, size ** (order + 1) / 8)
    return (_STIFFNESS[order] * effective).clip(1e-3, 1e5)


def _iterate(
    lines: jax.Array,
    weight: jax.Array,
    order: int,
    shrink: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """ADMM on `slopes = D x`: the nearest x whose slopes `shrink` does not change.

    With `gap = D x - (slopes - dual)`, the step in x reads
    `(1 + weight D D') gap = D v - (slopes - dual)`, `x = v - weight D' gap`.
    """
    solve = _factor(weight[:, 0], lines.shape[-1] - order, order)
    start = jnp.diff(lines, n=order)
    limit = max(10 * float(jnp.finfo(lines.dtype).eps), 1e-12)

    def goes_on(carry: _Carry) -> jax.Array:
        *_, move, rounds = carry
        return (rounds < _MOST_ROUNDS) & (move > limit)

    def refine(carry: _Carry) -> _Carry:
        slopes, dual, _, _, rounds = carry
        target = slopes - dual
        gap = solve(start - target)
        differences = target + gap
        relaxed = _RELAXATION * differences + (1 - _RELAXATION) * slopes
        new = shrink(relaxed + dual)
        move = jnp.max(jnp.abs(new - slopes)) + jnp.max(jnp.abs(differences - new))
        return new, dual + relaxed - new, gap, move, rounds + 1

    zero, first_move = jnp.zeros_like(start), jnp.ones((), lines.dtype)
    carry = (zero, zero, zero, first_move, jnp.zeros((), jnp.int32))
    slopes, dual, gap, *_ = jax.lax.while_loop(goes_on, refine, carry)
    return lines - weight * _adjoint(gap, order), slopes + dual


def _factor(weight: jax.Array, size: int, order: int) -> _Solve:
    """Returns a solver for `1 + weight D D'`, factored as L d L' with two diagonals."""
    main, first, second = _DIAGONALS[order]

    def eliminate(
        carry: tuple[_Pair, jax.Array], index: jax.Array
    ) -> tuple[tuple[_Pair, jax.Array], tuple[jax.Array, ...]]:
        (near, near_share), far = carry
        twice = jnp.where(index > 1, second * weight / far, 0.0)
        once = first * weight - twice * far * near_share
        once = jnp.where(index > 0, once / near, 0.0)
        pivot = 1 + main * weight - once**2 * near - twice**2 * far
        return ((pivot, once), near), (pivot, once, twice)

    unit = jnp.ones_like(weight)
    carry = ((unit, jnp.zeros_like(weight)), unit)
    pivots, once, twice = jax.lax.scan(eliminate, carry, jnp.arange(size))[1]

    def solve(right: jax.Array) -> jax.Array:
        def substitute(
            carry: _Pair, row: tuple[jax.Array, ...]
        ) -> tuple[_Pair, jax.Array]:
            near, far = carry
            entry = row[0] - row[1] * near - row[2] * far
            return (entry, near), entry

        zero = jnp.zeros_like(weight)
        rows = (right.T, once, twice)
        half = jax.lax.scan(substitute, (zero, zero), rows)[1] / pivots
        rows = (half, _shifted(once, 1), _shifted(twice, 2))
        return jax.lax.scan(substitute, (zero, zero), rows, reverse=True)[1].T

    return solve


def _shifted(rows: jax.Array, by: int) -> jax.Array:
    return jnp.concatenate([rows[by:], jnp.zeros_like(rows[:by])])[: len(rows)]
