"""Laws of penalties under JAX: pytrees, jit, vmap, sums; for every row of the table."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from jaxreg.rules.by_path import ByPath
from tests.laws.row import Row, cast
from tests.laws.table import (
    ROWS,
    every_kind,
    every_row,
    is_first_of_its_kind,
    prox_rows,
    rows_and_cases,
    rows_where,
    strength_rows,
)

PROX = jax.jit(lambda penalty, params, step: penalty.prox(params, step))
VALUE = jax.jit(lambda penalty, params: penalty.value(params))

FACTORS = [0.0, 0.5, 1.0, 100.0]

METHODS = {
    "value": lambda penalty, params, step: penalty.value(params),
    "subgradient": lambda penalty, params, step: penalty.subgradient(params),
    "prox": lambda penalty, params, step: penalty.prox(params, step),
    "stationarity": lambda penalty, params, step: penalty.stationarity(params, step),
}


def step_of(row: Row, method: str, varying):
    """Steps that vary, or one for all where the prox takes no others."""
    return 0.7 if method == "prox" and not row.varying_step else varying


def assert_trees_close(found, expected, rtol: float, atol: float = 0.0) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


every_kind_and_method = rows_and_cases(
    "method",
    METHODS,
    lambda row, method: (
        is_first_of_its_kind(row) and (row.has_prox or method != "prox")
    ),
)


@every_kind_and_method
def test_jit_gives_what_eager_gives(row: Row, method: str) -> None:
    params = {name: jnp.full(shape, 1.3) for name, shape in row.probe.items()}
    step = step_of(row, method, row.steps(1, 2, row.probe))
    found = jax.jit(METHODS[method])(row.penalty, params, step)
    # XLA fuses and reorders: some units of float32.
    assert_trees_close(
        found, METHODS[method](row.penalty, params, step), rtol=1e-5, atol=1e-6
    )


@every_kind_and_method
def test_vmap_over_parameters_gives_what_a_loop_gives(row: Row, method: str) -> None:
    trees = [cast(row.params(seed, row.probe), np.float32) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    step = step_of(row, method, cast(row.steps(1, 2, row.probe), np.float32))
    one = jax.jit(METHODS[method])
    looped = [one(row.penalty, tree, step) for tree in trees]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *looped)
    found = jax.jit(jax.vmap(METHODS[method], (None, 0, None)))(
        row.penalty, stacked, step
    )
    # XLA fuses and reorders: some units of float32.
    assert_trees_close(found, expected, rtol=1e-5, atol=1e-6)


@strength_rows
def test_vmap_of_value_over_strengths_gives_what_a_loop_gives(row: Row) -> None:
    params = cast(row.params(0), np.float32)
    grid, axes = row.grid(FACTORS)
    values = jax.jit(jax.vmap(VALUE, (axes, None)))(grid, params)
    # XLA fuses and reorders: some units of float32.
    looped = [VALUE(row.scaled(factor), params) for factor in FACTORS]
    np.testing.assert_allclose(values, looped, rtol=1e-6)


@rows_where(lambda row: row.has_strength and row.has_prox)
def test_vmap_of_prox_over_strengths_gives_what_a_loop_gives(row: Row) -> None:
    params = cast(row.params(0), np.float32)
    grid, axes = row.grid(FACTORS)
    proxes = jax.jit(jax.vmap(PROX, (axes, None, None)))(grid, params, 1.0)
    looped = [PROX(row.scaled(factor), params, 1.0) for factor in FACTORS]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *looped)
    # As above.
    assert_trees_close(proxes, stacked, rtol=1e-5, atol=1e-6)


@rows_where(lambda row: row.has_strength and row.has_prox)
def test_steps_for_a_grid_of_strengths_are_finite_and_positive(row: Row) -> None:
    params = cast(row.params(0), np.float32)
    grid, axes = row.grid([0.0, 1.0])

    def step_for(penalty):
        return dataclasses.replace(row, penalty=penalty).step_for(0.05, params)

    steps = jax.jit(jax.vmap(step_for, (axes,)))(grid)
    for name, step in steps.items() if isinstance(steps, dict) else [("", steps)]:
        assert np.isfinite(step).all()
        assert name in row.free or (step > 0).all()


@every_row
@pytest.mark.parametrize("wide", [np.float64, lambda number: jnp.asarray(number)])
def test_a_strength_of_float64_keeps_the_dtype_of_the_leaves(row: Row, wide) -> None:
    with jax.enable_x64(True):
        penalty = jax.tree.map(wide, row.penalty)
        params = cast(row.params(0), np.float32)
        found = [jax.eval_shape(penalty.subgradient, params)]
        if row.has_prox:
            step = jnp.ones((), np.float64)
            found.append(jax.eval_shape(penalty.prox, params, step))
        for out in found:
            assert {leaf.dtype for leaf in out.values()} == {np.dtype(np.float32)}


@every_kind
def test_flattening_and_unflattening_returns_an_equal_penalty(row: Row) -> None:
    leaves, treedef = jax.tree.flatten(row.penalty)
    assert jax.tree.unflatten(treedef, leaves) == row.penalty


@every_kind
def test_a_penalty_can_be_rebuilt_with_placeholders(row: Row) -> None:
    """JAX puts `object()`, `None` and tracers where the numbers are."""
    leaves, treedef = jax.tree.flatten(row.penalty)
    for placeholder in (object(), None, jnp.zeros(3)):
        rebuilt = treedef.unflatten([placeholder] * len(leaves))
        assert type(rebuilt) is type(row.penalty)


@strength_rows
def test_a_jitted_function_compiles_once_for_all_strengths(row: Row) -> None:
    traces = []

    @jax.jit
    def act(penalty, params):
        traces.append(penalty)
        return (
            penalty.prox(params, 1.0) if row.has_prox else penalty.subgradient(params)
        )

    params = cast(row.params(0), np.float32)
    weak, strong = (act(row.scaled(factor), params) for factor in (0.1, 5.0))
    assert len(traces) == 1
    assert any(np.any(weak[name] != strong[name]) for name in params)


@every_kind
def test_a_penalty_is_frozen_hashable_and_not_callable(row: Row) -> None:
    assert hash(row.penalty) == hash(row.scaled(1))
    assert not callable(row.penalty)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        row.penalty.strength = 1.0


HOLES = {"absent": None, "masked": optax.MaskedNode()}


@rows_where(lambda row: is_first_of_its_kind(row) and not row.is_bound_to_tree)
def test_none_and_masked_leaves_add_nothing_to_the_value(row: Row) -> None:
    params = cast(row.params(0), np.float32)
    assert VALUE(row.penalty, params | HOLES) == VALUE(row.penalty, params)


@rows_and_cases(
    "method",
    sorted(set(METHODS) - {"value"}),
    lambda row, method: (
        is_first_of_its_kind(row)
        and not row.is_bound_to_tree
        and (row.has_prox or method != "prox")
    ),
)
def test_none_and_masked_leaves_pass_through(row: Row, method: str) -> None:
    params = cast(row.params(0), np.float32) | HOLES
    step = step_of(row, method, params)
    out = jax.eval_shape(METHODS[method], row.penalty, params, step)
    assert out["absent"] is None
    assert isinstance(out["masked"], optax.MaskedNode)
    assert set(out) == set(params)


@prox_rows
def test_a_scalar_step_and_a_tree_of_that_step_agree(row: Row) -> None:
    params = cast(row.params(0), np.float32)
    expected = PROX(row.penalty, params, 0.7)
    per_leaf = {name: jnp.asarray(0.7) for name in params}
    # The very same operations.
    assert_trees_close(PROX(row.penalty, params, per_leaf), expected, rtol=1e-6)
    if row.varying_step:
        found = PROX(row.penalty, params, row.full(0.7))
        # Groups take another path here: a root found by Newton in float32.
        assert_trees_close(found, expected, rtol=1e-5, atol=1e-6)


@prox_rows
def test_a_step_of_another_structure_raises(row: Row) -> None:
    params = cast(row.params(0), np.float32)
    with pytest.raises(ValueError, match="step and params differ in structure"):
        row.penalty.prox(params, {"elsewhere": 1.0})
    with pytest.raises(ValueError, match="step and params differ in structure"):
        row.penalty.prox(params, [1.0] * len(params))


@every_row
def test_all_methods_run_without_rank_promotion(row: Row) -> None:
    params = cast(row.params(0), np.float32)
    with jax.numpy_rank_promotion("raise"):
        jax.eval_shape(row.penalty.value, params)
        jax.eval_shape(row.penalty.subgradient, params)
        jax.eval_shape(row.penalty.stationarity, params, params)


@prox_rows
def test_proxes_run_without_rank_promotion(row: Row) -> None:
    params = cast(row.params(0), np.float32)
    step = row.step_for(0.05, params)
    with jax.numpy_rank_promotion("raise"):
        jax.eval_shape(jax.jacfwd(lambda v: row.penalty.prox(v, 0.7)), params)
        jax.eval_shape(row.penalty.nearest_latent, params, params, step)
        if row.varying_step:
            full = cast(row.full(0.7), np.float32)
            jax.eval_shape(row.penalty.prox, params, full)


@every_row
def test_grads_of_a_shape_that_broadcasts_raise(row: Row) -> None:
    params = cast(row.params(0), np.float32)
    wrong = {name: leaf[None] for name, leaf in params.items()}
    with pytest.raises(ValueError, match=r"grads has shape \(1,.* at leaf '\w+' of"):
        row.penalty.stationarity(params, wrong)


@prox_rows
def test_a_latent_of_a_shape_that_broadcasts_raises(row: Row) -> None:
    params = cast(row.params(0), np.float32)
    wrong = {name: leaf[None] for name, leaf in params.items()}
    with pytest.raises(ValueError, match=r"latent has shape \(1,.* at leaf '\w+' of"):
        row.penalty.nearest_latent(wrong, params, row.step_for(0.05, params))


@prox_rows
def test_a_step_that_would_broadcast_its_leaf_raises(row: Row) -> None:
    params = cast(row.params(0), np.float32)
    wrong = {name: jnp.ones((7, *leaf.shape)) for name, leaf in params.items()}
    with pytest.raises(ValueError, match=r"step\['\w+'\] has shape \(7,"):
        row.penalty.prox(params, wrong)


def sum_of(one: jaxreg.Penalty, other: jaxreg.Penalty) -> jaxreg.Penalty | None:
    """The sum, or None where it raises in our words."""
    try:
        return one + other
    except TypeError as error:
        words = ("would solve another", "rules have no sums", "has no prox, only")
        assert any(text in str(error) for text in words)
        return None


@every_row
def test_a_sum_raises_or_has_the_values_of_both(row: Row) -> None:
    found = {}
    for other in ROWS:
        both = sum_of(row.penalty, other.penalty)
        assert both == sum_of(other.penalty, row.penalty)
        if both is not None:
            found[other.name] = both
    # That with L2, at least.
    assert bool(found) == (row.has_prox and not isinstance(row.penalty, ByPath))
    v = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    for other in ROWS:
        takes_kernel = all(
            one.scope == "leaf"
            and not one.is_bound_to_tree
            and one.penalty.layout.refusal(v.shape) is None
            for one in (row, other)
        )
        if other.name in found and takes_kernel:
            expected = row.penalty.value(v) + other.penalty.value(v)
            # A few roundings of float32.
            np.testing.assert_allclose(found[other.name].value(v), expected, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("step", [0.7, np.linspace(0.1, 2, 12).reshape(3, 4)])
def test_group_lasso_plus_l2_has_the_joint_value_and_prox(axis, step):
    lasso, ridge = jaxreg.GroupLasso(0.4, group_axis=axis), jaxreg.L2(0.3)
    with jax.enable_x64(True):
        v = jnp.linspace(-2, 2, 12).reshape(3, 4)
        both = lasso + ridge
        assert both == ridge + lasso
        np.testing.assert_allclose(both.value(v), lasso.value(v) + ridge.value(v))
        x = both.prox(v, step)
        distance = lasso.stationarity(x, (x - v) / step + ridge.subgradient(x))
        # Rounding, and the last Newton step.
        np.testing.assert_allclose(distance, 0, atol=1e-9)


@pytest.mark.parametrize("one", [jaxreg.L1(0.3), jaxreg.L2(0.2)])
@pytest.mark.parametrize("other", [jaxreg.L1(0.4), jaxreg.ElasticNet(0.3, 0.2)])
def test_a_sum_of_elementwise_penalties_has_the_joint_prox(one, other) -> None:
    both = one + other
    with jax.enable_x64(True):
        for v in np.linspace(-2, 2, 9):
            x = both.prox(v, 0.7)
            grads = (x - v) / 0.7
            # Rounding of float64: the prox of a convex sum is its stationary point.
            np.testing.assert_allclose(both.stationarity(x, grads), 0, atol=1e-14)


@every_kind
def test_a_penalty_plus_a_number_raises(row: Row) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        _ = row.penalty + 1.0


def test_penalties_of_two_classes_never_have_equal_structures() -> None:
    # jax.tree_util.register_dataclass makes L1(s) and L2(s) equal, and then a jitted
    # function runs the code compiled for the other when their hashes meet in its cache.
    for one, other in itertools.combinations([row.penalty for row in ROWS], 2):
        if type(one) is not type(other):
            assert jax.tree.structure(one) != jax.tree.structure(other)
