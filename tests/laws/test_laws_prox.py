"""Laws of the prox, for every row of the table."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.laws.row import Leaves, Row, Shapes, cast
from tests.laws.table import (
    convex_rows,
    prox_rows,
    rows_and_cases,
    rows_where,
    varying_rows,
)

STEPS = [1e-3, 0.1, 1.0, 3.0, 10.0, 1e3]
PROX = jax.jit(lambda penalty, params, step: penalty.prox(params, step))
JACOBIAN = jax.jit(jax.jacobian(lambda v, penalty, step: penalty.prox(v, step)))


@jax.jit
def slope_of_prox(penalty, params, direction, step):
    def prox(v):
        return penalty.prox(v, step)

    return jax.jvp(prox, (params,), (direction,))[1]


def unflat(points: np.ndarray, shapes: Shapes) -> Leaves:
    """Rows of numbers as leaves with a leading axis of points."""
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])
    pieces = np.split(points, ends[:-1], axis=1)
    return {
        name: piece.reshape(len(points), *shape)
        for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }


def objective(row: Row, points: np.ndarray, v: np.ndarray, step: np.ndarray, shapes):
    """`h(x) + sum (x - v)^2 / (2 step)`; a step of 0 allows no move at all."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.where(points == v, 0.0, (points - v) ** 2 / (2 * step))
    return row.height(unflat(points, shapes)) + distance.sum(1)


def walkable(row: Row, points: np.ndarray, shapes: Shapes) -> np.ndarray:
    """The points, mapped into the set of a constraint."""
    if row.feasible is None:
        return points
    inside = row.feasible(unflat(points, shapes))
    return np.concatenate(
        [inside[name].reshape(len(points), -1) for name in shapes], axis=1
    )


def lowest(row: Row, v: np.ndarray, step: np.ndarray) -> float:
    """The least objective on a grid of two entries that closes in on its best point."""
    best, half = np.zeros(2), 2 * abs(v).max() + 1
    for _ in range(5):
        offsets = np.linspace(-half, half, 121)
        lines = [
            np.concatenate([center + offsets, [0.0, entry]])
            for center, entry in zip(best, v, strict=True)
        ]
        grid = np.stack(np.meshgrid(*lines), -1).reshape(-1, 2)
        heights = objective(row, walkable(row, grid, row.probe), v, step, row.probe)
        best, half = grid[heights.argmin()], half / 30
    return heights.min()


def assert_as_low_as_brute_force(row: Row, v: list[float], step: np.ndarray) -> None:
    v = np.array(v)
    leaves = {name: leaf[0] for name, leaf in unflat(v[None], row.probe).items()}
    steps = {name: leaf[0] for name, leaf in unflat(step[None], row.probe).items()}
    out = PROX(row.penalty, leaves, steps if row.varying_step else step[0])
    x = np.concatenate([np.ravel(out[name]) for name in row.probe])
    found, floor = objective(row, x[None], v, step, row.probe)[0], lowest(row, v, step)
    # The grid ends at a spacing below 1e-7, where the objective is flat to 1e-13; the
    # objective is 1 / step strongly convex, so this pins x to 2e-6 sqrt(step).
    assert found <= floor + row.rounding * 1e-12 * (1 + abs(floor)), (v, step, x)


PROBES = [[2.0, -0.7], [0.3, 0.2], [1.0, 1.0], [0.0, -1.5], [-4.0, 0.5]]


@prox_rows
@pytest.mark.parametrize("step", STEPS)
def test_prox_is_no_worse_than_brute_force(row: Row, step: float, x64) -> None:
    for v in PROBES:
        assert_as_low_as_brute_force(row, v, np.full(2, step))


@varying_rows
@pytest.mark.parametrize("step", [(1e-4, 1e4), (1e4, 1e-4), (1.0, 0.0), (1.0, 1e-4)])
def test_prox_with_steps_per_entry_is_no_worse_than_brute_force(
    row: Row, step: tuple[float, float], x64
) -> None:
    for v in PROBES:
        assert_as_low_as_brute_force(row, v, np.array(step))


@rows_and_cases(
    "decades", [0, 8], lambda row, d: row.has_prox and (row.varying_step or not d)
)
def test_no_perturbation_of_the_prox_lowers_the_objective(
    row: Row, decades: float, x64
) -> None:
    v, steps = row.params(0), row.steps(1, decades)
    flat = [np.concatenate([np.ravel(t[n]) for n in row.shapes]) for t in (v, steps)]
    out = PROX(row.penalty, v, steps if row.varying_step else 1.0)
    x = np.concatenate([np.ravel(out[name]) for name in row.shapes])
    generator = np.random.default_rng(2)
    directions = np.concatenate([np.eye(x.size), generator.normal(size=(200, x.size))])
    for size in (1e-1, 1e-3, 1e-5):
        moved = np.concatenate([x + size * directions, x - size * directions])
        moved = walkable(row, moved, row.shapes)
        floor = objective(row, moved, *flat, row.shapes).min()
        found = objective(row, x[None], *flat, row.shapes)[0]
        # Rounding of a sum of at most 100 terms in float64.
        assert found <= floor + row.rounding * 1e-13 * abs(found)


@prox_rows
def test_a_step_of_zero_returns_the_input_exactly(row: Row) -> None:
    v = cast(row.params(0), np.float32)
    zeros = {name: np.zeros(shape) for name, shape in row.shapes.items()}
    for step in [0.0, zeros] if row.varying_step else [0.0]:
        out = PROX(row.penalty, v, step)
        for name, leaf in v.items():
            np.testing.assert_array_equal(out[name], leaf)


@prox_rows
def test_prox_of_zero_is_finite_and_zero(row: Row) -> None:
    for step in [0.0, 1e-3, 1.0, 1e3] + [row.steps(0, 8)] * row.varying_step:
        for leaf in PROX(row.penalty, row.full(0.0), step).values():
            assert np.isfinite(leaf).all()
            assert not row.keeps_zero or not np.any(leaf)


@convex_rows
@pytest.mark.parametrize("step", STEPS)
def test_the_conjugate_takes_the_rest_by_moreaus_identity(
    row: Row, step: float, x64
) -> None:
    v = row.params(0)
    dual = row.dual({name: leaf / step for name, leaf in v.items()}, step)
    out = PROX(row.penalty, v, step)
    for name, leaf in v.items():
        # A few roundings in float64 of numbers of size 1.
        off = 1e-14 * row.rounding * max(step, 1)
        np.testing.assert_allclose(out[name] + step * dual[name], leaf, atol=off)


@rows_and_cases(
    "decades",
    [0, 8],
    lambda row, decades: (
        row.is_convex and row.has_prox and (row.varying_step or not decades)
    ),
)
def test_prox_is_nonexpansive_in_the_metric_of_its_steps(
    row: Row, decades: float, x64
) -> None:
    for seed in range(5):
        one, other = row.params(2 * seed), row.params(2 * seed + 1)
        ones = {name: np.ones(shape) for name, shape in row.shapes.items()}
        steps = row.steps(seed, decades) if row.varying_step else ones
        step = steps if row.varying_step else 1.0
        moved = [PROX(row.penalty, v, step) for v in (one, other)]

        def distance(x: Leaves, y: Leaves, weights=steps) -> float:
            return sum(np.sum((x[name] - y[name]) ** 2 / weights[name]) for name in x)

        # Rounding in float64.
        assert distance(*moved) <= distance(one, other) * (1 + 1e-12 * row.rounding)


def awkward(row: Row) -> Leaves:
    """Zeros of both signs, ties, and entries from 1e-30 to 1e30."""
    pattern = [1e30, -1.0, 1e-30, 0.0, -0.0, -1e30, -1e-30, 1.0, 1.0, -1.0, 0.3, -0.3]
    return {n: np.resize(pattern, shape) for n, shape in row.shapes.items()}


@prox_rows
@pytest.mark.parametrize("entry", [1e30, 1.0, 1e-30, -0.0, None])
def test_prox_has_no_nan_and_no_negative_zero_at_any_scale(
    row: Row, entry: float | None
) -> None:
    v = awkward(row) if entry is None else row.full(entry)
    if entry is not None:
        v = {name: leaf * np.resize([1, -1, 1], leaf.shape) for name, leaf in v.items()}
    broad = [row.steps(0, 6)] * row.varying_step
    for step in [1e-3, 1.0, 1e3, *broad]:
        for name, leaf in PROX(row.penalty, cast(v, np.float32), step).items():
            assert np.isfinite(leaf).all(), (name, step)
            if name not in row.free:
                assert not (np.signbit(leaf) & (leaf == 0)).any(), (name, step)


def with_last(leaf: np.ndarray, entry: float) -> np.ndarray:
    """The leaf with another last entry."""
    leaf = np.array(leaf)
    leaf[(-1,) * leaf.ndim] = entry
    return leaf


# No bound of a row is above 2.
ORDINARY = np.array([2.0, 10.0, 100.0])


@prox_rows
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("bad", "ordinary"),
    [(np.inf, ORDINARY), (-np.inf, -ORDINARY), (np.nan, [*ORDINARY, *-ORDINARY])],
    ids=["infinity", "-infinity", "nan"],
)
def test_prox_is_nan_where_it_depends_on_what_is_not_finite(
    row: Row, bad: float, ordinary: list[float], dtype
) -> None:
    """Entries are NaN, or the same whatever ordinary number stands in its place.

    The infinite entry itself may also stay.
    """
    v = cast(row.params(0), dtype)
    steps = [1.0] + [row.steps(0, 2)] * row.varying_step
    for changed, step in itertools.product((n for n in v if v[n].size), steps):
        out, *others = (
            PROX(row.penalty, {**v, changed: with_last(v[changed], entry)}, step)
            for entry in (bad, *ordinary)
        )
        for name, leaf in out.items():
            # A unit of the dtype; and 10 of float32 at 100, where lines share a loop.
            slack = {"rtol": jnp.finfo(dtype).eps, "atol": 1e-4}
            is_same = [np.isclose(leaf, other[name], **slack) for other in others]
            is_right = np.all(is_same, axis=0) | np.isnan(leaf)
            if name == changed:
                is_entry = with_last(np.zeros(leaf.shape, bool), True)
                is_right |= is_entry & (leaf == bad)
            assert np.all(is_right), (changed, name, step, leaf)


@rows_where(lambda row: row.has_prox and row.is_continuous)
@pytest.mark.parametrize("entry", [1e30, 1.0, 1e-30, None])
def test_prox_in_float32_agrees_with_float64_at_any_scale(
    row: Row, entry: float | None
) -> None:
    v = awkward(row) if entry is None else row.full(entry)
    for step in [1e-3, 1.0, 1e3] + [row.steps(0, 6)] * row.varying_step:
        narrow = PROX(row.penalty, cast(v, np.float32), step)
        with jax.enable_x64(True):
            wide = PROX(row.penalty, v, step)
        for name, leaf in v.items():
            # 10 units of float32 in the entry, or in the largest it is coupled with.
            size = abs(leaf)
            if row.is_coupled:
                size = np.max(np.maximum(size, abs(np.asarray(wide[name]))), initial=0)
            slack = 10 * row.rounding * np.finfo(np.float32).eps * (size + row.offset)
            assert (abs(narrow[name] - np.asarray(wide[name])) <= slack).all(), name


@prox_rows
@pytest.mark.parametrize("entry", [0.0, 1.0, 0.3])
def test_the_jacobian_of_prox_is_finite_at_zero_and_at_ties(
    row: Row, entry: float
) -> None:
    """jaxopt's prox_group_lasso returns NaN here."""
    v = {name: jnp.full(shape, entry) for name, shape in row.probe.items()}
    for step in [1.0] + [row.steps(0, 8, row.probe)] * row.varying_step:
        for block in jax.tree.leaves(JACOBIAN(v, row.penalty, step)):
            assert np.isfinite(block).all(), step


@prox_rows
def test_the_derivative_of_prox_is_that_of_finite_differences(row: Row, x64) -> None:
    # The direction has no zeros, so that it also leaves the zeros of v.
    v, direction = row.params(0), row.steps(1, 1)
    if row.is_coupled or row.is_constraint:
        v = row.generic(0)
    for step in [1.0] + [row.steps(2, 4)] * row.varying_step:
        slope = slope_of_prox(row.penalty, v, direction, step)
        ahead, behind = (
            PROX(row.penalty, {n: v[n] + size * direction[n] for n in v}, step)
            for size in (1e-6, -1e-6)
        )
        for name in v:
            quotient = (ahead[name] - behind[name]) / 2e-6
            # Central differences: 1e-12 of curvature and 1e-10 of rounding.
            np.testing.assert_allclose(
                slope[name], quotient, atol=1e-8 * min(row.rounding, 100)
            )


@rows_where(lambda row: row.is_convex and row.moves_by_width and row.has_prox)
@pytest.mark.parametrize("width", [0.01, 0.05, 1.0])
def test_the_step_for_a_width_moves_twice_the_width_to_the_width(
    row: Row, width: float
) -> None:
    v = cast(row.full(2 * width), np.float32)
    step = row.step_for(width, v)
    out = PROX(row.penalty, v, step)
    for name, leaf in out.items():
        expected = np.full(leaf.shape, 2 * width if name in row.free else width)
        # Two roundings of a difference of float32.
        np.testing.assert_allclose(leaf, expected, rtol=1e-6)


@rows_where(lambda row: row.moves_by_width and row.has_prox and not row.is_convex)
@pytest.mark.parametrize("width", [0.001, 0.05])
def test_the_step_for_a_width_zeroes_just_what_is_narrower(
    row: Row, width: float
) -> None:
    step = row.step_for(width, row.params(0))
    for entry, is_dead in ((0.99 * width, True), (1.01 * width, False)):
        for leaf in PROX(row.penalty, cast(row.full(entry), np.float32), step).values():
            assert np.all((leaf == 0) == is_dead)


@rows_where(lambda row: row.has_strength and row.has_prox)
def test_at_strength_zero_prox_is_the_identity(row: Row) -> None:
    nothing = row.scaled(0.0)
    v = cast(row.params(0), np.float32)
    found = dataclasses.replace(row, penalty=nothing).step_for(0.05, v)
    assert all(np.isfinite(one) for one in jax.tree.leaves(found))
    for step in [1.0, found] + [row.steps(1, 8)] * row.varying_step:
        for name, leaf in PROX(nothing, v, step).items():
            # A group's own norm divides it: one rounding of float32 each way.
            slack = 3e-7 * row.rounding
            np.testing.assert_allclose(leaf, v[name], rtol=slack, atol=slack)
