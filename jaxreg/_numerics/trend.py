"""The prox of the sizes of repeated differences along lines, by ADMM."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._numerics.isotonic import segment_means
from jaxreg._numerics.taut_string import total_variation_prox

_MOST_ROUNDS = 5000  # Ends loops in which rounding keeps the moves above their limit.
_RELAXATION = 1.7  # ADMM converges for any below 2, and faster for some above 1.
# The weight of ADMM per unit of threshold: with a weight that is not clipped, a round
# shrinks slopes by the inverse, in units of the largest entry. It affects speed alone.
_STIFFNESS = {1: 10.0, 2: 30.0, 3: 90.0}

_Solve = Callable[[jax.Array], jax.Array]
_Row = tuple[jax.Array, ...]
"""Numbers of one row of a matrix, each with one entry per line."""
_Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]
"""x, slopes, dual, True for the lines that do not rest yet, and the rounds so far."""


def trend_prox(lines: jax.Array, threshold: jax.Array, order: int) -> jax.Array:
    """`argmin_x threshold |D x|_1 + |x - v|^2 / 2` for each row `v`.

    `D` takes differences of `order + 1`, and `threshold` has one number per row. The
    polynomial of degree `order` nearest to a line, which costs nothing, is taken out
    first and added back: neither the time nor the error depends on it.

    The result is differentiable while its pattern of knots is constant. There
    `dx = P (dv - (v - x) dlog t)`, with P the projection on the lines that have these
    knots and no others, and t the threshold.
    """
    moves = threshold > 0
    positive = jnp.where(moves, threshold, 1.0)
    constants = jax.lax.stop_gradient((lines, positive))
    solution, begins, _ = solve(*constants, order)
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


def adjoint(lines: jax.Array, depth: int) -> jax.Array:
    """The transpose of `jnp.diff(..., n=depth)`."""
    for _ in range(depth):
        lines = jnp.pad(lines, [(0, 0)] * (lines.ndim - 1) + [(1, 1)])
        lines = lines[..., :-1] - lines[..., 1:]
    return lines


@functools.partial(jax.jit, static_argnums=2)
def solve(
    lines: jax.Array, threshold: jax.Array, order: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The prox, the begin of each flat stretch of its differences, and the rounds."""
    rest = _detrended(lines, order)
    scale = _scale(rest)
    threshold = threshold / scale
    weight = _weight(threshold, order, lines.shape[-1])

    def shrink(slopes: jax.Array) -> jax.Array:
        return total_variation_prox(slopes, threshold / weight)[0]

    solution, slopes, rounds = _iterate(rest / scale, weight, order, shrink)
    begins = total_variation_prox(slopes, threshold / weight)[1]
    return (lines - rest) + solution * scale, begins, rounds


@functools.partial(jax.jit, static_argnums=3)
def _project(
    lines: jax.Array, threshold: jax.Array, begins: jax.Array, order: int
) -> jax.Array:
    """The nearest lines whose differences of `order` are flat on each stretch."""
    rest = _detrended(lines, order)
    scale = _scale(rest)

    def shrink(slopes: jax.Array) -> jax.Array:
        return segment_means(slopes.reshape(-1), begins).reshape(slopes.shape)

    weight = _weight(threshold, order, lines.shape[-1])
    solution = _iterate(rest / scale, weight, order, shrink)[0]
    return (lines - rest) + solution * scale


def _detrended(lines: jax.Array, order: int) -> jax.Array:
    """The lines minus the nearest polynomial of degree `order`."""
    places = jnp.linspace(-1, 1, lines.shape[-1], dtype=lines.dtype)
    columns = [_unit(jnp.ones_like(places))]
    for _ in range(order):
        column = places * columns[-1]
        for lower in columns:
            column = column - jnp.sum(column * lower) * lower
        columns.append(_unit(column))
    basis = jnp.stack(columns, axis=1)
    # Twice: the second time takes what the rounding of the first has left.
    for _ in range(2):
        shares = jnp.matmul(lines, basis, precision="highest")
        lines = lines - jnp.matmul(shares, basis.T, precision="highest")
    return lines


def _unit(column: jax.Array) -> jax.Array:
    return column / jnp.sqrt(jnp.sum(column * column))


def _scale(lines: jax.Array) -> jax.Array:
    largest = jnp.max(jnp.abs(lines), axis=-1, keepdims=True)
    return jnp.where(largest > 0, largest, 1.0)


def _weight(threshold: jax.Array, order: int, size: int) -> jax.Array:
    """The weight of ADMM; thresholds that make lines of `size` straight are alike."""
    effective = jnp.minimum(threshold, size ** (order + 1) / 8)
    return (_STIFFNESS[order] * effective).clip(1e-3, 1e5)


def _iterate(
    lines: jax.Array,
    weight: jax.Array,
    order: int,
    shrink: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """ADMM on `slopes = D x`: the nearest x whose slopes `shrink` does not change.

    The step in x, `(1 + weight D' D) x = v + weight D' (slopes - dual)`, is solved for
    the change of x: then only its residual has to be exact. The multiplier of D, which
    is large where x is smooth, is never added to x. A line rests once its moves are
    below their limits, whatever the others do.
    """
    solve = _factor(weight[:, 0], lines.shape[-1], order)
    eps = max(float(jnp.finfo(lines.dtype).eps), 1e-13)
    # Rounding of D x changes x by up to this many units.
    x_limit = eps * jnp.maximum(100.0, 4 * jnp.sqrt(weight))

    def goes_on(carry: _Carry) -> jax.Array:
        *_, goes, rounds = carry
        return (rounds < _MOST_ROUNDS) & jnp.any(goes)

    def refine(carry: _Carry) -> _Carry:
        x, slopes, dual, goes, rounds = carry
        gap = jnp.diff(x, n=order) - (slopes - dual)
        change = solve(lines - x - adjoint(weight * gap, order))
        new_x = x + change
        differences = jnp.diff(new_x, n=order)
        relaxed = _RELAXATION * differences + (1 - _RELAXATION) * slopes
        new = shrink(relaxed + dual)
        move = _largest(new - slopes) + _largest(differences - new)
        is_moving = (move > 10 * eps) | (_largest(change) > x_limit)

        def moved(now: jax.Array, before: jax.Array) -> jax.Array:
            return jnp.where(goes, now, before)

        return (
            moved(new_x, x),
            moved(new, slopes),
            moved(dual + relaxed - new, dual),
            goes & is_moving,
            rounds + 1,
        )

    zero = jnp.zeros_like(lines[:, order:])
    carry = (lines, zero, zero, weight > 0, jnp.zeros((), jnp.int32))
    x, slopes, dual, _, rounds = jax.lax.while_loop(goes_on, refine, carry)
    return x, slopes + dual, rounds


def _largest(lines: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(lines), axis=-1, keepdims=True)


def _bands(size: int, order: int) -> jax.Array:
    """The diagonals of `D' D` from the main one down, as columns, padded in front."""
    signs = [(-1) ** j * math.comb(order, j) for j in range(order + 1)]
    bands = jnp.zeros((order + 1, size))
    for i, j in itertools.product(range(order + 1), repeat=2):
        if i >= j:
            rows = slice(i, size - order + i)
            bands = bands.at[i - j, rows].add(signs[i] * signs[j])
    return bands


def _factor(weight: jax.Array, size: int, order: int) -> _Solve:
    """Returns a solver for `1 + weight D' D`, factored as L d L' with `order` bands."""
    zero, unit = jnp.zeros_like(weight), jnp.ones_like(weight)

    def eliminate(carry: tuple[_Row, ...], band: jax.Array) -> tuple[Any, _Row]:
        """One row; the carry has the pivots and multipliers of those before it."""
        products: dict[int, jax.Array] = {}
        for back in range(order, 0, -1):
            _, *shares = carry[back - 1]
            entry = band[back] * weight
            for far in range(back + 1, order + 1):
                entry -= products[far] * shares[far - back - 1]
            products[back] = entry
        pivot = 1 + band[0] * weight
        multipliers = []
        for back in range(1, order + 1):
            multipliers.append(products[back] / carry[back - 1][0])
            pivot -= multipliers[-1] * products[back]
        row = (pivot, *multipliers)
        return (row, *carry[:-1]), row

    first = (unit, *([zero] * order))
    bands = _bands(size, order).T.astype(weight.dtype)
    pivots, *shares = jax.lax.scan(eliminate, (first,) * order, bands)[1]

    def solve(right: jax.Array) -> jax.Array:
        def substitute(carry: _Row, row: _Row) -> tuple[_Row, jax.Array]:
            entry = row[0]
            for share, before in zip(row[1:], carry, strict=True):
                entry -= share * before
            return (entry, *carry[:-1]), entry

        start = (zero,) * order
        half = jax.lax.scan(substitute, start, (right.T, *shares))[1] / pivots
        ahead = [_shifted(rows, by + 1) for by, rows in enumerate(shares)]
        return jax.lax.scan(substitute, start, (half, *ahead), reverse=True)[1].T

    return solve


def _shifted(rows: jax.Array, by: int) -> jax.Array:
    return jnp.concatenate([rows[by:], jnp.zeros_like(rows[:by])])[: len(rows)]
