"""Laws of value, subgradient and stationarity, for every row of the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.laws.row import Leaves, Row, cast
from tests.laws.table import (
    IN_DEFAULT_RUN,
    ROWS,
    constraint_rows,
    convex_rows,
    distance_rows,
    every_row,
    prox_rows,
    rows_and_cases,
    rows_where,
    strength_rows,
)

PROX = jax.jit(lambda penalty, params, step: penalty.prox(params, step))
VALUE = jax.jit(lambda penalty, params: penalty.value(params))
GRADIENT = jax.jit(jax.grad(lambda params, penalty: penalty.value(params)))
SUBGRADIENT = jax.jit(lambda penalty, params: penalty.subgradient(params))
STATIONARITY = jax.jit(
    lambda penalty, params, grads: penalty.stationarity(params, grads)
)

DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]


def points(leaves: Leaves) -> Leaves:
    """The leaves with a leading axis of one point."""
    return {name: np.asarray(leaf)[None] for name, leaf in leaves.items()}


def test_the_rows_have_names_of_their_own() -> None:
    names = {row.name for row in ROWS}
    assert len(names) == len(ROWS)
    assert names >= IN_DEFAULT_RUN


@every_row
def test_the_penalty_states_the_facts_of_its_row(row: Row) -> None:
    facts = row.penalty.facts
    assert facts.is_convex == row.is_convex
    assert facts.varying_step == row.varying_step
    assert facts.is_joint == (row.scope == "tree")
    assert facts.stationarity_kind == row.stationarity_kind


@convex_rows
def test_a_convex_row_brings_the_prox_of_its_conjugate(row: Row) -> None:
    assert (row.conjugate_prox is None) == row.is_constraint


@every_row
def test_a_row_gives_a_value_or_the_projection_of_a_constraint(row: Row) -> None:
    assert (row.value is None) == row.is_constraint
    assert row.project is None or row.feasible is not None


@every_row
def test_value_is_the_textbook_formula(row: Row, x64) -> None:
    for params in (row.params(0), row.full(0.0), row.full(-0.7)):
        expected = row.height(points(params))[0]
        found = VALUE(row.penalty, params)
        # Sums of at most 100 terms in float64.
        np.testing.assert_allclose(found, expected, rtol=1e-13 * row.rounding)


@every_row
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_is_a_float32_scalar_summed_in_float32(row: Row, dtype) -> None:
    params = cast(row.params(0), dtype)
    value = VALUE(row.penalty, params)
    assert (value.shape, value.dtype) == ((), jnp.float32)
    exact = row.height(points({n: np.asarray(x, float) for n, x in params.items()}))
    # Sums of at most 100 terms in float32.
    np.testing.assert_allclose(value, exact[0], rtol=1e-6 * row.rounding)


@rows_where(lambda row: not row.is_bound_to_tree)
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_of_leaves_without_entries_is_zero(row: Row, dtype) -> None:
    empty = {name: jnp.zeros((0, 3), dtype) for name in row.shapes}
    value = VALUE(row.penalty, empty)
    assert (value.shape, value.dtype, float(value)) == ((), jnp.float32, 0.0)


@every_row
@pytest.mark.parametrize("dtype", DTYPES)
def test_methods_keep_shapes_and_dtypes(row: Row, dtype) -> None:
    params = cast(row.params(0), dtype)
    steps = [0.5] + [cast(row.steps(1, 4), np.float32)] * row.varying_step
    results = [
        jax.eval_shape(PROX, row.penalty, params, step)
        for step in steps
        if row.has_prox
    ]
    results.append(jax.eval_shape(SUBGRADIENT, row.penalty, params))
    for result in results:
        for name, leaf in params.items():
            assert (result[name].shape, result[name].dtype) == (leaf.shape, dtype)
    distances = jax.eval_shape(STATIONARITY, row.penalty, params, params)
    for name, leaf in params.items():
        assert distances[name].shape == leaf.shape


@prox_rows
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32_and_rounded_once(
    row: Row, dtype
) -> None:
    broad = [row.steps(seed, 4, row.probe) for seed in range(10)] * row.varying_step
    for seed, step in enumerate([1e-2, 0.1, 1.0, *broad]):
        half = cast(row.params(seed, row.probe), dtype)
        narrow = PROX(row.penalty, half, step)
        wide = PROX(row.penalty, cast(half, jnp.float32), step)
        for name, leaf in wide.items():
            np.testing.assert_array_equal(narrow[name], leaf.astype(dtype))


@every_row
def test_the_gradient_of_value_is_the_subgradient(row: Row, x64) -> None:
    for params in (row.params(0), row.full(0.0), row.full(1.0), row.full(-0.0)):
        gradient = GRADIENT(params, row.penalty)
        for name, leaf in SUBGRADIENT(row.penalty, params).items():
            assert np.isfinite(leaf).all()
            # Both are one product and one quotient in float64.
            np.testing.assert_allclose(
                gradient[name], leaf, rtol=1e-14 * row.rounding, atol=1e-300
            )


@rows_where(lambda row: row.feasible is None)
def test_the_gradient_of_value_is_that_of_finite_differences(row: Row, x64) -> None:
    params, direction = row.generic(3), row.params(1)
    gradient = GRADIENT(params, row.penalty)
    slope = sum(np.sum(gradient[name] * direction[name]) for name in params)
    ahead, behind = (
        row.height(points({n: params[n] + size * direction[n] for n in params}))[0]
        for size in (1e-6, -1e-6)
    )
    # Central differences: 1e-12 of curvature, 1e-9 of rounding.
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-7, atol=1e-8)


@every_row
@pytest.mark.parametrize("entry", [0.0, 1e-30, 1.0, 1e30])
def test_derivatives_and_distances_are_finite_at_any_scale(
    row: Row, entry: float
) -> None:
    signs = {n: np.resize([1.0, -1.0, 1.0], shape) for n, shape in row.shapes.items()}
    params = cast({n: entry * sign for n, sign in signs.items()}, np.float32)
    found = {
        "gradient": GRADIENT(params, row.penalty),
        "subgradient": SUBGRADIENT(row.penalty, params),
        "stationarity": STATIONARITY(row.penalty, params, cast(signs, np.float32)),
        "stationarity of a steep loss": STATIONARITY(row.penalty, params, params),
    }
    for method, leaves in found.items():
        for name, leaf in leaves.items():
            assert np.isfinite(leaf).all(), (method, name)
    assert not np.isnan(VALUE(row.penalty, params))


@distance_rows
def test_the_subgradient_is_the_one_nearest_to_zero(row: Row, x64) -> None:
    for params in (row.params(0), row.full(0.0)):
        nearest = STATIONARITY(row.penalty, params, row.full(0.0))
        for name, leaf in SUBGRADIENT(row.penalty, params).items():
            # The same float64 numbers in another order of operations; an SVD rounds
            # small entries as it does the largest.
            atol = 4e-15 * np.max(nearest[name], initial=0.0)
            np.testing.assert_allclose(abs(leaf), nearest[name], rtol=1e-14, atol=atol)


@prox_rows
def test_stationarity_is_zero_at_fixed_points_of_the_prox(row: Row, x64) -> None:
    v = row.params(0)
    for step in [0.1, 1.0, 10.0] + [row.steps(1, 4)] * row.varying_step:
        x = PROX(row.penalty, v, step)
        steps = step if isinstance(step, dict) else dict.fromkeys(v, step)
        grads = {name: (x[name] - v[name]) / steps[name] for name in v}
        for name, leaf in STATIONARITY(row.penalty, x, grads).items():
            # Rounding of v in float64, divided by the step.
            slack = row.rounding * 1e-14 / np.minimum(steps[name], 1)
            assert (np.asarray(leaf) <= slack).all(), (name, step)


def steepest_descent(row: Row, x: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """The subgradient of loss + penalty nearest to 0, from values of the penalty alone.

    Its negative is the direction of steepest descent, and its norm is that slope.
    """
    angles = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)], -1).round(12)
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in row.probe.values()])

    def height(where: np.ndarray) -> np.ndarray:
        pieces = np.split(where, ends[:-1], axis=1)
        names = zip(row.probe.items(), pieces, strict=True)
        return row.height({n: p.reshape(len(p), *shape) for (n, shape), p in names})

    rise = height(x + 1e-7 * directions) - height(x[None])
    slopes = rise / 1e-7 + directions @ grad
    return -min(slopes.min(), 0.0) * directions[slopes.argmin()]


def probe_leaves(row: Row, numbers: tuple[float, float]) -> Leaves:
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in row.probe.values()])
    pieces = np.split(np.array(numbers), ends[:-1])
    names = zip(row.probe.items(), pieces, strict=True)
    return {name: piece.reshape(shape) for (name, shape), piece in names}


def has_distance_at(row: Row, x: tuple[float, float]) -> bool:
    """True if stationarity is a distance and the point has a finite value."""
    is_distance = row.has_prox and row.stationarity_kind == "distance"
    return is_distance and np.isfinite(row.height(points(probe_leaves(row, x)))).all()


@rows_and_cases("x", [(0.0, 0.0), (0.0, 0.8), (-0.5, 0.8), (1.0, 1.0)], has_distance_at)
@pytest.mark.parametrize("grad", [(0.1, -0.2), (2.0, 0.25), (-0.4, 0.1), (0.0, 0.0)])
def test_stationarity_is_the_distance_found_by_brute_force(
    row: Row, x: tuple[float, float], grad: tuple[float, float], x64
) -> None:
    at, slope = probe_leaves(row, x), probe_leaves(row, grad)
    distances = STATIONARITY(row.penalty, at, slope)
    found = np.concatenate([np.ravel(distances[name]) for name in row.probe])
    expected = abs(steepest_descent(row, np.array(x), np.array(grad)))
    # 20,000 directions are 2e-4 apart, and a slope here is at most 3.
    np.testing.assert_allclose(found, expected, atol=1e-3)


@strength_rows
def test_the_derivative_by_strength_is_the_value_at_strength_one(row: Row, x64) -> None:
    params = row.generic(0)
    slope = jax.jit(jax.grad(lambda factor: row.scaled(factor).value(params)))(1.0)
    if row.is_linear_in_numbers:
        # Float64 sums of at most 100 terms.
        expected = row.height(points(params))[0]
    else:
        ahead, behind = (VALUE(row.scaled(1 + h), params) for h in (1e-6, -1e-6))
        expected = (ahead - behind) / 2e-6
    np.testing.assert_allclose(slope, expected, rtol=1e-8)


@prox_rows
def test_stationarity_is_not_zero_away_from_fixed_points(row: Row, x64) -> None:
    v = row.params(0)
    x = PROX(row.penalty, v, 0.7)
    # A constant would change nothing on a simplex.
    waves = {name: 3 * np.resize([1.0, -1.0], leaf.shape) for name, leaf in v.items()}
    far = {name: (x[name] - v[name]) / 0.7 + waves[name] for name in v}
    found = STATIONARITY(row.penalty, x, far)
    assert any(np.any(np.asarray(leaf) > 0.1) for leaf in found.values())


@constraint_rows
def test_a_constraint_is_zero_on_its_set_and_infinite_off_it(
    row: Row,
) -> None:
    v = cast(row.params(0), np.float32)
    assert VALUE(row.penalty, v) == np.inf
    for dtype in DTYPES:
        inside = PROX(row.penalty, cast(row.params(0), dtype), 1.0)
        assert VALUE(row.penalty, inside) == 0.0
    moved = {name: leaf - v[name] for name, leaf in inside.items()}
    distance = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in moved.values()))
    # The nearest point in float16, of entries below 3.
    np.testing.assert_allclose(row.penalty.violation(v), distance, rtol=3e-3)


@convex_rows
def test_value_is_convex_along_lines(row: Row, x64) -> None:
    for seed in range(5):
        one, other = row.params(2 * seed), row.params(2 * seed + 1)
        if row.is_constraint:
            one, other = (PROX(row.penalty, v, 1.0) for v in (one, other))
        middle = {name: (one[name] + other[name]) / 2 for name in one}
        ends = VALUE(row.penalty, one) + VALUE(row.penalty, other)
        # Rounding of float64.
        assert VALUE(row.penalty, middle) <= ends / 2 * (1 + 1e-14)
