"""Trend filtering."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core.layout import Lines
from jaxreg._core.leafwise import Leafwise, magnitude
from jaxreg._core.penalty import Facts, Number, ratio
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.isotonic import segment_means
from jaxreg._numerics.taut_string import total_variation_prox
from jaxreg.penalties.total_variation import check_axis

_ROUNDS = 5000
_LONGER = 1.7
_STIFFNESS = {1: 10.0, 2: 30.0}
# The diagonals of D D', D the differences of order 1 and 2.
_DIAGONALS = {1: (2.0, -1.0, 0.0), 2: (6.0, -4.0, 1.0)}

Solve = Callable[[jax.Array], jax.Array]


@pytree_dataclass
class TrendFilter(Leafwise):
    r"""Trend filtering, `strength * sum |(D w)_i|`, D differences of `order + 1`.

    Its prox makes lines piecewise linear (`order=1`) or quadratic (`order=2`) along an
    axis, with few knots. Use it for weights that follow a trend that bends; where they
    jump use `TotalVariation`, which is order 0. The prox is INEXACT: it iterates until
    its moves are some tens of roundings, and is right to `prox_tolerance` of the
    largest entry. Kinks are therefore small rather than exactly 0, and there are no
    zeros to gain. The step is one number along `axis`. The subgradient is 0 where the
    differences are. bfloat16 leaves are computed in float32.

    Args:
      strength: >= 0, in units of loss per unit of weight.
      order: 1 or 2, the degree of the pieces.
      axis: the axis of the lines; other axes are independent.

    Raises:
      TypeError: `axis` is no int.
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

    has_loop = True
    facts = Facts(prox_tolerance=1e-3, stationarity_kind="residual")

    def __post_init__(self) -> None:
        check_axis(type(self).__name__, self.axis)
        if self.order not in _DIAGONALS:
            raise ValueError(
                f"TrendFilter: order is {self.order!r}; allowed: 1 or 2. Order 0 is "
                "jaxreg.TotalVariation"
            )

    @property
    def layout(self) -> Lines:
        return Lines(self.axis)

    def step_for(self, width: Number) -> jax.Array:
        return ratio(width, self.strength)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        kinks = magnitude(_differences(jnp.moveaxis(leaf, self.axis, -1), self._depth))
        total = self.strength * jnp.sum(kinks, axis=-1, keepdims=True)
        return jnp.moveaxis(total, -1, self.axis)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        lines = jnp.moveaxis(leaf, self.axis, -1)
        if lines.shape[-1] <= self._depth:
            return jnp.zeros_like(leaf)
        signs = jnp.sign(_differences(lines, self._depth))
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


def _differences(lines: jax.Array, depth: int) -> jax.Array:
    return jnp.diff(lines, n=depth, axis=-1)


def _adjoint(lines: jax.Array, depth: int) -> jax.Array:
    """The transpose of `_differences`."""
    for _ in range(depth):
        lines = jnp.pad(lines, [(0, 0)] * (lines.ndim - 1) + [(1, 1)])
        lines = lines[..., :-1] - lines[..., 1:]
    return lines


def _prox(lines: jax.Array, threshold: jax.Array, order: int) -> jax.Array:
    """Each row's prox, with the derivative of the prox on its pattern of knots.

    There `dx = P (dv - (v - x) dlog t)`, with P the projection on the lines that have
    these knots and no others, and t the threshold.
    """
    moves = threshold > 0
    pull = jnp.where(moves, threshold, 1.0)
    fixed = jax.lax.stop_gradient((lines, pull))
    found, begins = _solve(*fixed, order)
    lean = (fixed[0] - found) / fixed[1]
    tangent = (lines - fixed[0]) - lean * (pull - fixed[1])
    # A projection is its own transpose, and this is how to say so: the matrix that is
    # solved with enters no derivative of the solution by the right side.
    moved = jax.lax.custom_linear_solve(
        lambda x: x,
        tangent,
        lambda _, x: _project(x, fixed[1], begins, order),
        symmetric=True,
    )
    return jnp.where(moves, found + moved, lines)


@functools.partial(jax.jit, static_argnums=2)
def _solve(
    lines: jax.Array, threshold: jax.Array, order: int
) -> tuple[jax.Array, jax.Array]:
    """The prox, and where each flat stretch of the differences of `order` begins."""
    scale = jnp.max(jnp.abs(lines), initial=jnp.finfo(lines.dtype).tiny)
    threshold = threshold / scale
    weight = _weight(threshold, order, lines.shape[-1])

    def shrink(slopes: jax.Array) -> jax.Array:
        return total_variation_prox(slopes, threshold / weight)[0]

    found, slopes = _iterate(lines / scale, weight, order, shrink)
    begins = total_variation_prox(slopes, threshold / weight)[1]
    return found * scale, begins


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
    """The stiffness for a threshold; beyond a bound a line of `size` is straight."""
    effective = jnp.minimum(threshold, size ** (order + 1) / 8)
    return (_STIFFNESS[order] * effective).clip(1e-3, 1e5)


def _iterate(
    lines: jax.Array,
    weight: jax.Array,
    order: int,
    shrink: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """ADMM on `slopes = D x`: the nearest x whose slopes `shrink` leaves alone.

    With `gap = D x - (slopes - dual)`, the step in x reads
    `(1 + weight D D') gap = D v - (slopes - dual)`, `x = v - weight D' gap`.
    """
    solve = _factor(weight[:, 0], lines.shape[-1] - order, order)
    start = _differences(lines, order)
    limit = max(10 * float(jnp.finfo(lines.dtype).eps), 1e-12)

    def goes_on(carry: Any) -> Any:
        *_, move, rounds = carry
        return (rounds < _ROUNDS) & (move > limit)

    def refine(carry: Any) -> Any:
        slopes, dual, _, _, rounds = carry
        aim = slopes - dual
        gap = solve(start - aim)
        found = aim + gap
        ahead = _LONGER * found + (1 - _LONGER) * slopes
        new = shrink(ahead + dual)
        move = jnp.max(jnp.abs(new - slopes)) + jnp.max(jnp.abs(found - new))
        return new, dual + ahead - new, gap, move, rounds + 1

    one = jnp.ones((), lines.dtype)
    zero = jnp.zeros_like(start)
    carry = (zero, zero, zero, one, jnp.zeros((), jnp.int32))
    slopes, dual, gap, *_ = jax.lax.while_loop(goes_on, refine, carry)
    return lines - weight * _adjoint(gap, order), slopes + dual


def _factor(weight: jax.Array, size: int, order: int) -> Solve:
    """Solves with `1 + weight D D'`, two diagonals aside, by its factors L d L'."""
    ahead = jnp.arange(size)
    main, first, second = _DIAGONALS[order]

    def eliminate(carry: Any, place: Any) -> Any:
        (near, near_share), far = carry
        twice = jnp.where(place > 1, second * weight / far, 0.0)
        once = first * weight - twice * far * near_share
        once = jnp.where(place > 0, once / near, 0.0)
        pivot = 1 + main * weight - once**2 * near - twice**2 * far
        return ((pivot, once), near), (pivot, once, twice)

    unit = jnp.ones_like(weight)
    carry = ((unit, jnp.zeros_like(weight)), unit)
    pivots, once, twice = jax.lax.scan(eliminate, carry, ahead)[1]

    def solve(right: jax.Array) -> jax.Array:
        def down(carry: Any, row: Any) -> Any:
            near, far = carry
            entry = row[0] - row[1] * near - row[2] * far
            return (entry, near), entry

        zero = jnp.zeros_like(weight)
        rows = (right.T, once, twice)
        half = jax.lax.scan(down, (zero, zero), rows)[1] / pivots
        rows = (half, _shifted(once, 1), _shifted(twice, 2))
        return jax.lax.scan(down, (zero, zero), rows, reverse=True)[1].T

    return solve


def _shifted(rows: jax.Array, by: int) -> jax.Array:
    return jnp.concatenate([rows[by:], jnp.zeros_like(rows[:by])])[: len(rows)]
