"""Facts of all constraints, and their errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from jaxreg._core.groups import Blocks

pytestmark = pytest.mark.slow

PROX = jax.jit(lambda penalty, leaf, step: penalty.prox(leaf, step))


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


ALL: dict[str, Any] = {
    "non-negative": jaxreg.NonNegative(),
    "box": jaxreg.Box(-0.3, 0.6),
    "L1 ball": jaxreg.L1Ball(1.0),
    "L2 ball": jaxreg.L2Ball(1.0),
    "simplex": jaxreg.Simplex(),
    "norms": jaxreg.MinMaxNorm(0.5, 1.0),
    "unit norm": jaxreg.UnitNorm(),
    "top-k": jaxreg.TopK(fraction=0.3),
    "N:M": jaxreg.NM(1, 2),
}


@pytest.mark.parametrize("kind", ALL)
def test_a_projection_of_a_projection_is_itself(kind: str) -> None:
    v = normal(0, 3, 4, 2, 6).astype("f4")
    once = PROX(ALL[kind], v, 1.0)
    # Sums of 144 entries below 1 in float32.
    np.testing.assert_allclose(PROX(ALL[kind], once, 1.0), once, rtol=1e-6, atol=1e-7)
    assert ALL[kind].value(once) == 0.0
    assert float(ALL[kind].violation(v)) > 0.1


@pytest.mark.parametrize("kind", ALL)
def test_stationarity_is_not_zero_outside_the_set(kind: str) -> None:
    v = normal(0, 3, 4, 2, 6).astype("f4")
    found = ALL[kind].stationarity(v, jnp.zeros_like(v))
    assert float(jnp.max(found)) > 0.01


@pytest.mark.parametrize("kind", ["norms", "unit norm", "simplex"])
def test_zeros_go_to_equal_entries_and_are_not_stationary(kind: str) -> None:
    zeros = jnp.zeros((2, 8))
    found = np.asarray(ALL[kind].prox(zeros, 1.0))
    assert (found == found[0, 0]).all() and found[0, 0] > 0
    assert float(jnp.max(ALL[kind].stationarity(zeros, zeros))) > 0.1


@pytest.mark.parametrize("penalty", [jaxreg.L1Ball, jaxreg.L2Ball, jaxreg.Simplex])
@pytest.mark.parametrize("step", [1.0, np.array([1.0, 2.0, 0.5])])
def test_a_traced_bound_of_zero_has_finite_derivatives(penalty, step):
    v = jnp.array([1.0, -2.0, 0.0])

    def prox(bound: jax.Array, v: jax.Array) -> jax.Array:
        return penalty(bound).prox(v, step)

    assert not jnp.any(jax.jit(prox)(jnp.zeros(()), v))
    for block in jax.jit(jax.jacobian(prox, (0, 1)))(jnp.zeros(()), v):
        assert jnp.isfinite(block).all()


@pytest.mark.parametrize("penalty", [jaxreg.L1Ball, jaxreg.L2Ball, jaxreg.Simplex])
def test_the_derivative_by_the_bound_is_right(penalty, x64):
    v, step = normal(0, 9), 10 ** normal(1, 9)

    def prox(bound: Any) -> jax.Array:
        return penalty(bound).prox(v, step)

    slope = jax.jvp(prox, (1.0,), (1.0,))[1]
    quotient = (prox(1 + 1e-6) - prox(1 - 1e-6)) / 2e-6
    # Central differences: 1e-12 of curvature, 1e-10 of rounding.
    np.testing.assert_allclose(slope, quotient, atol=1e-8)


@pytest.mark.parametrize("kind", ["L1 ball", "simplex", "L2 ball"])
def test_entries_of_step_zero_stay_and_others_share_the_rest(kind, x64) -> None:
    v, step = np.array([0.6, 3.0, 2.0, 0.0]), np.array([0.0, 1.0, 2.0, 0.0])
    found = np.asarray(PROX(ALL[kind], v, step))
    assert (found[0], found[3]) == (0.6, 0.0)
    power = 2 if kind == "L2 ball" else 1
    # Roundings of float64.
    np.testing.assert_allclose((abs(found) ** power).sum(), 1, rtol=1e-14)
    crowded = np.asarray(PROX(ALL[kind], np.array([2.0, 3.0]), np.array([0.0, 1.0])))
    assert crowded.tolist() == [2.0, 0.0]


def test_array_bounds_of_a_box_hold_entry_by_entry() -> None:
    box = jaxreg.Box(jnp.array([[-1.0], [0.0]]), np.array([0.5, np.inf], "f4"))
    found = box.prox(jnp.array([[-2.0, -2.0], [1.0, 1.0]]), 1.0)
    assert found.tolist() == [[-1.0, -1.0], [0.5, 1.0]]


def test_blocks_are_groups_of_a_bound() -> None:
    heads = jaxreg.UnitNorm(group_axis=Blocks((None, 2)))
    v = jnp.array([[3.0, 0.0, 1.0, 0.0], [4.0, 0.0, 0.0, 0.0]])
    found = heads.prox(v, 1.0)
    expected = [[0.6, 0.0, 1.0, 0.0], [0.8, 0.0, 0.0, 0.0]]
    # One quotient in float32.
    np.testing.assert_allclose(found, expected, rtol=2e-7)
    assert heads.layout.unit_count((2, 4)) == 2


REFUSED = {
    "either count or fraction": (TypeError, lambda: jaxreg.TopK()),
    "allowed: either count": (TypeError, lambda: jaxreg.TopK(3, fraction=0.1)),
    "count is 0.5; allowed: an int >= 0": (TypeError, lambda: jaxreg.TopK(0.5)),
    "count is -1; allowed: an int >= 0": (ValueError, lambda: jaxreg.TopK(-1)),
    "is 1.5; allowed: a finite number from 0 to 1": (
        ValueError,
        lambda: jaxreg.TopK(fraction=1.5),
    ),
    "allowed scopes": (ValueError, lambda: jaxreg.TopK(1, scope="group")),
    "allowed: 0 <= n <= m": (ValueError, lambda: jaxreg.NM(3, 2)),
    "allowed: ints": (TypeError, lambda: jaxreg.NM(1, 2.0)),
    "allowed: lower <= upper": (ValueError, lambda: jaxreg.Box(1.0, 0.0)),
    "lower <= upper$": (ValueError, lambda: jaxreg.MinMaxNorm(1.0, 0.5)),
    "group_axis is 'rows'": (TypeError, lambda: jaxreg.L1Ball(1.0, "rows")),
}


@pytest.mark.parametrize("message", REFUSED)
def test_impossible_bounds_raise_in_words(message: str) -> None:
    error, make = REFUSED[message]
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "penalty, shape, reason",
    [
        (jaxreg.NM(2, 4), (6, 3), "do not split into blocks of 4; choose another m"),
        (jaxreg.NM(2, 4), (8,), "has 1 axes, and axis is -2; name one it has"),
        (jaxreg.Box(np.zeros(3), 1.0), (2, 4), r"does not match a bound of shape \(3,"),
        (jaxreg.L2Ball(1.0, group_axis=2), (2, 4), "has axes 0 to 1"),
    ],
)
def test_a_leaf_that_cannot_carry_a_constraint_raises(penalty, shape, reason):
    with pytest.raises(ValueError, match=reason):
        jaxreg.describe(penalty, {"kernel": jnp.ones(shape)})


def test_steps_within_a_group_raise_where_no_projection_is_known():
    with pytest.raises(ValueError, match="pass one step per leaf"):
        jaxreg.UnitNorm().prox(jnp.ones(3), jnp.array([1.0, 2.0, 3.0]))
    found = jaxreg.UnitNorm(group_axis=0).prox(jnp.ones((2, 1)), jnp.ones((2, 1)))
    assert found.tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("width", [0.05, 1.0])
def test_regularize_projects_the_params_at_its_first_update(width):
    params = {"kernel": jnp.array([3.0, -1.0, 0.5])}
    penalty = jaxreg.TopK(1)
    (row, *_) = jaxreg.describe(penalty, params, width).rows
    # Two of three entries; the table rounds nothing.
    assert row["zeroed_at_start"] == pytest.approx(2 / 3)
    tx = jaxreg.regularize(optax.sgd(0.0), penalty, width=width)
    grads = {"kernel": jnp.zeros(3)}
    updates, _ = tx.update(grads, tx.init(params), params)
    found = optax.apply_updates(params, updates)
    assert found["kernel"].tolist() == [3.0, 0.0, 0.0]
