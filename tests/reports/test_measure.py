"""Numbers about parameters."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from experiments.kit.transformations import (
    TRANSFORMATIONS,
    Settings,
    Transformation,
)
from jaxreg.reports import measure as measures

PARAMS = {
    "bias": jnp.array([0.0, 1.0]),
    "kernel": jnp.array([[3.0, -4.0], [0.0, -0.0], [0.0, 1.0]]),
}
ROWS_OF_KERNEL = jaxreg.on_kernels(jaxreg.GroupLasso(1.0, group_axis=0))


def test_zeros_counts_zeros_of_both_signs_and_nothing_small() -> None:
    assert measures.zeros(jnp.array([0.0, -0.0, 1e-30, 1.0])) == 2
    assert measures.zeros(jnp.zeros((0, 3))) == 0


@pytest.mark.parametrize("axis, dead", [(0, 1), (1, 0), (-2, 1)])
def test_dead_groups_are_those_that_are_zero_throughout(axis: int, dead: int) -> None:
    penalty = jaxreg.GroupLasso(1.0, group_axis=axis)
    assert measures.dead_units(penalty, [PARAMS["kernel"]]) == dead


def test_dead_groups_over_two_axes_are_counted_apart() -> None:
    penalty = jaxreg.GroupLasso(1.0, group_axis=(0, 2))
    leaf = jnp.ones((2, 3, 2)).at[0, :, 1].set(0.0).at[1, 0, 0].set(0.0)
    assert measures.dead_units(penalty, [leaf]) == 1


def test_an_elementwise_penalty_has_no_groups() -> None:
    assert measures.dead_units(jaxreg.L1(1.0), [PARAMS["kernel"]]) is None


def test_norm_is_euclidean_and_summed_in_float32() -> None:
    assert measures.norm(PARAMS["kernel"]) == np.float32(np.sqrt(26.0))
    # In bfloat16 a sum of ones stops growing at 256.
    assert measures.norm(jnp.ones(10_000, jnp.bfloat16)) == 100.0


def test_zero_share_is_over_the_entries_of_penalised_leaves() -> None:
    assert measures.zero_share(jaxreg.on_kernels(jaxreg.L1(1.0)), PARAMS) == 0.5
    assert measures.zero_share(jaxreg.L1(1.0), PARAMS) == 0.5
    first = jaxreg.by_path([("bias", jaxreg.L1(1.0)), ("kernel", jaxreg.L2(1.0))])
    more = PARAMS | {"free": jnp.zeros(100)}
    assert measures.zero_share(first, more) == 0.5


def test_zero_share_of_no_entries_is_zero() -> None:
    assert measures.zero_share(jaxreg.L1(1.0), {"a": jnp.zeros((0, 2))}) == 0.0
    assert measures.zero_share(jaxreg.L1(1.0), {}) == 0.0


def test_stationarity_rms_is_over_penalised_entries() -> None:
    params = {"bias": jnp.array([1.0]), "kernel": jnp.array([2.0, 0.0, 0.0])}
    grads = {"bias": jnp.array([100.0]), "kernel": jnp.array([2.0, 0.5, -4.0])}
    penalty = jaxreg.on_kernels(jaxreg.L1(1.0))
    # Distances 3, 0 and 3; one mean and one root in float32.
    expected = np.sqrt(18 / 3)
    found = measures.stationarity_rms(penalty, params, grads)
    np.testing.assert_allclose(found, expected, rtol=2e-7)


def test_stationarity_rms_is_zero_at_the_solution() -> None:
    v = jnp.array([2.0, 0.3, -1.5])
    x = jaxreg.L1(0.5).prox(v, 1.0)
    assert measures.stationarity_rms(jaxreg.L1(0.5), x, x - v) == 0.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_measures_run_inside_jit(dtype) -> None:
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)

    def both(params):
        share = measures.zero_share(ROWS_OF_KERNEL, params)
        return share, measures.stationarity_rms(ROWS_OF_KERNEL, params, params)

    for found, expected in zip(jax.jit(both)(params), both(params), strict=True):
        assert found.dtype == jnp.float32
        # XLA reorders sums of six terms.
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_measure_is_the_same_inside_jit_and_skips_free_leaves() -> None:
    before = PARAMS | {"kernel": jnp.array([[3.0, 0.0], [0.0, 1.0], [0.0, 1.0]])}
    found = jaxreg.measure(ROWS_OF_KERNEL, PARAMS, grads=PARAMS, previous=before)
    assert list(found) == [
        "zeros",
        "zero_share",
        "penalty",
        "dead_groups",
        "stationarity",
        "relative_stationarity",
        "flips",
    ]
    assert found["zeros"] == 3 and found["zero_share"] == 0.5
    assert found["dead_groups"] == 1 and found["flips"] == 2
    assert found["penalty"] == ROWS_OF_KERNEL.value(PARAMS)
    expected = measures.stationarity_rms(ROWS_OF_KERNEL, PARAMS, PARAMS)
    assert found["stationarity"] == expected
    jitted = jax.jit(jaxreg.measure)(
        ROWS_OF_KERNEL, PARAMS, grads=PARAMS, previous=before
    )
    for name, number in jitted.items():
        np.testing.assert_allclose(number, found[name], rtol=1e-6)
        assert number.shape == ()


def scheduled(row: Transformation, penalty: Any, schedule: Any) -> Any:
    return row.alone(penalty, Settings(schedule=schedule))


FACTOR_TRANSFORMS = {
    name: partial(scheduled, row)
    for name, row in TRANSFORMATIONS.items()
    if row.takes_schedule
} | {
    "in a chain": lambda p, s: optax.chain(
        optax.clip(1.0), optax.MultiSteps(jaxreg.prox_sgd(0.1, p, schedule=s), 1)
    ),
}


@pytest.mark.parametrize("name", FACTOR_TRANSFORMS)
def test_measure_reads_the_factor_that_acted_last(name: str) -> None:
    penalty = jaxreg.L1(1.0)
    tx = FACTOR_TRANSFORMS[name](penalty, optax.linear_schedule(0.25, 1.0, 3))
    params = {"w": jnp.ones(3)}
    state, seen = tx.init(params), []
    for _ in range(5):
        _, state = tx.update(params, state, params)
        found = jaxreg.measure(penalty, params, opt_state=state)
        seen.append(float(found["strength_factor"]))
    np.testing.assert_allclose(seen, [0.25, 0.5, 0.75, 1.0, 1.0])


def test_measure_raises_on_a_state_with_no_factor_or_with_two() -> None:
    penalty, params = jaxreg.L1(1.0), jnp.ones(2)
    for tx in (
        optax.adam(0.1),
        optax.chain(jaxreg.add_penalty_gradient(penalty), jaxreg.shrink(penalty, 0.1)),
    ):
        with pytest.raises(ValueError, match="allowed: exactly one"):
            jaxreg.measure(penalty, params, opt_state=tx.init(params))


def test_measure_without_groups_names_no_groups() -> None:
    found = jaxreg.measure(jaxreg.L1(1.0), PARAMS)
    assert list(found) == ["zeros", "zero_share", "penalty"]


def test_measure_raises_on_other_structures_and_unmatched_rules() -> None:
    with pytest.raises(ValueError, match="previous and params differ"):
        jaxreg.measure(jaxreg.L1(1.0), PARAMS, previous={"bias": jnp.ones(2)})


@pytest.mark.parametrize("name", ["grads", "previous"])
@pytest.mark.parametrize("shape", [(1, 2), (2,), (), (1, 3, 2)])
@pytest.mark.parametrize("penalty", [jaxreg.L1(1.0), ROWS_OF_KERNEL])
def test_measure_refuses_a_companion_that_broadcasts(name, shape, penalty) -> None:
    message = rf"{name} has shape {shape} at leaf 'kernel' of shape (3, 2); pass "
    companion = PARAMS | {"kernel": jnp.ones(shape)}
    with pytest.raises(ValueError, match=re.escape(message)):
        jaxreg.measure(penalty, PARAMS, **{name: companion})


@pytest.mark.parametrize("absent", [None, optax.MaskedNode(), {}])
def test_measure_refuses_a_missing_gradient(absent) -> None:
    message = f"grads has {absent!r} at leaf 'kernel' of shape (3, 2); pass the grad"
    with pytest.raises(ValueError, match=re.escape(message)):
        jaxreg.measure(ROWS_OF_KERNEL, PARAMS, grads=PARAMS | {"kernel": absent})
    nothing = jaxreg.by_path([("none$", jaxreg.L1(1.0))])
    with pytest.raises(ValueError, match="matches no leaf"):
        jaxreg.measure(nothing, PARAMS)


def test_counts_that_int32_cannot_hold_are_float32():
    def found(rows):
        leaf = jax.ShapeDtypeStruct((rows, 2**20), jnp.float32)
        penalty = jaxreg.L1(1.0)
        return jax.eval_shape(lambda x: jaxreg.measure(penalty, x, previous=x), leaf)

    small, large = found(2**10), found(2**11)
    assert {small[name].dtype for name in ("zeros", "flips")} == {jnp.dtype("int32")}
    assert {large[name].dtype for name in ("zeros", "flips")} == {jnp.dtype("float32")}


def test_counts_in_float32_are_those_in_int32(monkeypatch):
    leaf = jnp.arange(48.0).reshape(6, 8) % 3
    penalty = jaxreg.L1(1.0)
    counted = jaxreg.measure(penalty, leaf, previous=leaf - 1)
    monkeypatch.setattr(measures, "MOST", 10)
    assert jaxreg.measure(penalty, leaf, previous=leaf - 1) == counted
    assert counted["zeros"] == 16


@pytest.mark.parametrize(
    "way",
    [
        jaxreg.target_sparsity(optax.sgd(0.1), jaxreg.L1(1.0), 0.5, 10),
        jaxreg.project(jaxreg.TopK(fraction=0.5, scope="tree")),
    ],
    ids=["target_sparsity", "TopK"],
)
def test_more_entries_than_can_be_counted_raise(way):
    leaf = jax.ShapeDtypeStruct((2**11, 2**20), jnp.float32)

    def step(params):
        return way.update(params, way.init(params), params)

    with pytest.raises(ValueError, match="2147483648 entries or groups are counted"):
        jax.eval_shape(step, leaf)


def test_measure_per_leaf_is_measure_of_each_leaf_alone() -> None:
    rules = jaxreg.by_path(
        [("kernel", jaxreg.GroupLasso(0.5, group_axis=0)), ("bias", jaxreg.L1(0.5))]
    )
    params = PARAMS | {"free": jnp.zeros(3)}
    grads = jax.tree.map(lambda leaf: leaf + 0.3, params)
    before = jax.tree.map(lambda leaf: leaf - 1.0, params)

    @jax.jit
    def measured(params: Any, grads: Any, before: Any) -> dict[str, jax.Array]:
        return jaxreg.measure(rules, params, grads, None, before, per_leaf=True)

    found = measured(params, grads, before)
    assert not [key for key in found if key.endswith("/free")]
    alone = {}
    for name, penalty in (("kernel", rules.penalties[0]), ("bias", rules.penalties[1])):
        trees = (tree[name] for tree in (params, grads))
        numbers = jaxreg.measure(penalty, *trees, None, before[name])
        del numbers["zeros"], numbers["penalty"], numbers["relative_stationarity"]
        numbers["norm"] = measures.norm(params[name])
        alone |= {f"{key}/{name}": number for key, number in numbers.items()}
    assert {key for key in found if "/" in key} == set(alone)
    for key, number in alone.items():
        np.testing.assert_allclose(found[key], number, rtol=1e-6, err_msg=key)
    total = jaxreg.measure(rules, params, grads, None, before)
    assert {key: found[key] for key in total} == total
