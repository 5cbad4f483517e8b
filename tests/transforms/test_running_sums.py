"""`dual_average` and `ftrl` alike: states, dtypes, missing leaves, errors."""

from functools import partial
from typing import Any

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxreg
from experiments.correctness import support_recovery
from tests.support.known_solutions import (
    STRENGTH,
    from_the_solution,
    from_the_solution_of_groups,
    given_grads,
)
from tests.support.training import answers, make_step, train

BUILD: dict[str, Any] = {
    "dual_average": lambda penalty, **rest: jaxreg.dual_average(0.2, penalty, **rest),
    "ftrl": lambda penalty, **rest: jaxreg.ftrl(0.5, penalty, **rest),
}
both = pytest.mark.parametrize("name", BUILD)
L1 = jaxreg.L1(0.25)
ROWS = jaxreg.GroupLasso(0.25, group_axis=0)


def make_params(dtype: Any = jnp.float32) -> Any:
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), dtype)
    return {"kernel": kernel, "table": kernel[:4]}


def grads_of(params: Any) -> Any:
    """The gradients of half the squared distance to 1/2."""
    return jax.tree.map(lambda leaf: leaf - 0.5, params)


# Rates and betas that bound the first steps, so that rounding does not grow: below
# 2 / curvature.
STEADY: dict[str, Any] = {
    "dual_average": lambda penalty: jaxreg.dual_average(0.01, penalty),
    "dual_average, momentum": lambda penalty: jaxreg.dual_average(0.01, penalty, 0.9),
    "ftrl": lambda penalty: jaxreg.ftrl(0.1, penalty, beta=10.0),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("build", STEADY.values(), ids=STEADY)
def test_started_at_the_solution_it_stays_there(build, dtype, x64) -> None:
    path, wanted, slack = from_the_solution(build(jaxreg.L1(STRENGTH)), dtype)
    np.testing.assert_allclose(path, wanted, atol=slack)
    assert not np.any(path[:, 2]) and not np.any(np.signbit(path[:, 2]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("build", [jaxreg.dual_average, jaxreg.ftrl])
def test_started_at_the_solution_of_a_group_lasso_it_stays(build, dtype, x64) -> None:
    path, wanted, slack = from_the_solution_of_groups(partial(build, 0.5), dtype)
    np.testing.assert_allclose(path, wanted, atol=slack)
    assert not np.any(path[:, 1])


@pytest.mark.parametrize("build", [jaxreg.dual_average, jaxreg.ftrl])
def test_a_strong_penalty_gives_zeros_at_once_and_for_ever(build) -> None:
    grads, start = given_grads(30, (4,)).astype("f4"), jnp.array([1.0, -1, 2, -3])
    path = answers(build(0.1, jaxreg.L1(1e3)), grads, start)
    assert not np.any(path[1:]) and not np.any(np.signbit(path[1:]))


@pytest.mark.parametrize(
    "name", [pytest.param("dual_average", marks=pytest.mark.slow), "ftrl"]
)
def test_it_finds_the_support_of_a_lasso_and_keeps_it(name: str) -> None:
    config = support_recovery.Config(
        rows=500, features=50, support=5, steps=3000, batch=16
    )
    ours = support_recovery.measure(config, name, "constant", seed=0)
    assert ours["nonzeros"] == ours["lasso_nonzeros"] == 5
    assert ours["flips"] == 0
    loose = support_recovery.measure(config, "prox_sgd", "constant", seed=0)
    assert loose["flips"] > 5
    assert ours["gap"] < loose["gap"]


@both
@pytest.mark.slow
def test_a_free_leaf_is_trained_alike_without_the_penalty(name: str) -> None:
    params, _ = train(BUILD[name](jaxreg.on_kernels(ROWS)), grads_of, make_params(), 20)
    free, _ = train(BUILD[name](jaxreg.L1(0.0)), grads_of, make_params(), 20)
    full, _ = train(BUILD[name](ROWS), grads_of, make_params(), 20)
    np.testing.assert_allclose(params["table"], free["table"], rtol=1e-6)
    np.testing.assert_array_equal(params["kernel"], full["kernel"])
    assert np.any(params["kernel"] != free["kernel"])


@both
def test_only_a_free_leaf_may_be_without_a_gradient(
    name: str,
) -> None:
    tx, params = BUILD[name](jaxreg.on_kernels(L1)), make_params()
    state = tx.init(params)
    updates, after = tx.update({**params, "table": None}, state, params)
    assert updates["table"] is None
    kept = jax.tree.map(lambda x: x, (after[0]["table"], after[1]["table"]))
    expected = state[0]["table"], state[1]["table"]
    jax.tree.map(np.testing.assert_array_equal, kept, expected)
    with pytest.raises(ValueError, match=f"{name}: the gradient of.*'kernel' is None"):
        tx.update({**params, "kernel": None}, state, params)


@both
def test_running_sums_of_bfloat16_weights_do_not_stagnate(name) -> None:
    tx, params = BUILD[name](jaxreg.L1(1e-3)), jnp.ones(4, jnp.bfloat16)
    state = tx.init(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} <= {
        jnp.dtype(kind) for kind in ("float32", "int32", "bfloat16")
    }
    grads = jnp.full((200, 4), 1e-3, jnp.bfloat16)
    path = answers(tx, grads, params)
    assert path.dtype == params.dtype
    # A step is below half a unit of 1, and plain SGD in bfloat16 would never move.
    assert jnp.bfloat16(1.0) - jnp.bfloat16(2e-4) == 1
    assert np.all(path[1].astype("f4") == 1)
    assert np.all(path[-1].astype("f4") < 0.98)


@both
def test_a_state_of_shapes_starts_at_the_first_updates_params(name) -> None:
    tx, params = BUILD[name](jaxreg.L1(0.1)), make_params()
    shapes = jax.eval_shape(lambda tree: tree, params)
    found, _ = train(tx, grads_of, params, 3, tx.init(shapes))
    expected, _ = train(tx, grads_of, params, 3, tx.init(params))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    numbers = {"a": 1.0, "b": -0.5}
    updates, _ = tx.update({"a": 0.0, "b": 0.0}, tx.init(numbers), numbers)
    assert all(np.abs(move) < 0.5 for move in updates.values())


@both
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_zeros_are_exact_in_every_dtype(name: str, dtype: str) -> None:
    with jax.enable_x64(True):
        start = jnp.asarray([[1.0, -2.0, 0.3]], dtype)
        grads = jnp.tile(jnp.asarray([[0.1, -0.2, 3.0]], dtype), (60, 1, 1))
        path = np.asarray(answers(BUILD[name](L1), grads, start).astype("f8"))
        assert not np.any(path[-1, 0, :2]) and path[-1, 0, 2] < -0.3
        assert not np.any(np.signbit(path[-1, 0, :2]))


@both
def test_the_state_says_the_factor_of_the_last_update(name: str) -> None:
    tx = BUILD[name](L1, schedule=lambda count: 0.5 * count)
    params = make_params()
    state = tx.init(params)
    assert state.strength_factor == 1 and state.strength_factor.dtype == jnp.float32
    for expected in (0.0, 0.5, 1.0):
        _, state = tx.update(params, state, params)
        found = optax.tree.get(state, "strength_factor")
        assert found == expected and found.dtype == jnp.float32


@both
def test_donated_params_and_state_train_without_a_warning(name: str) -> None:
    tx = BUILD[name](ROWS)
    kept, _ = train(tx, grads_of, make_params(), 3)
    donating = jax.jit(make_step(tx, grads_of), donate_argnums=(0, 1))
    params = make_params()
    state = tx.init(params)
    for _ in range(3):
        donated = params
        params, state = donating(params, state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(donated))
    # Two programs for one formula: XLA may fuse a product and a sum in one of them.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 3e-6), params, kept)


@both
@pytest.mark.parametrize("penalty", [jaxreg.L1, lambda s: jaxreg.GroupLasso(s, 0)])
@pytest.mark.slow
def test_a_vmapped_grid_of_strengths_gives_the_separate_runs(name, penalty) -> None:
    strengths = jnp.array([0.0, 0.1, 100.0])
    start, grads = jnp.ones((4, 2)), jnp.linspace(-1, 1, 160).reshape(20, 4, 2)

    def run(strength: Any) -> Any:
        tx = BUILD[name](penalty(strength))
        return train(tx, lambda x, grad: grad, start, grads)[0]

    grid = jax.vmap(run)(strengths)
    for row, strength in zip(grid, strengths, strict=True):
        np.testing.assert_allclose(row, run(strength), rtol=1e-5, atol=1e-6)
    assert not np.any(grid[-1])


@both
def test_a_leaf_that_is_spread_over_a_mesh_stays_so(name: str) -> None:
    mesh = jax.make_mesh((1,), ("x",), (AxisType.Explicit,), devices=jax.devices()[:1])
    where = NamedSharding(mesh, PartitionSpec("x", None))
    params = jax.device_put(jnp.ones((8, 3)), where)
    tx = BUILD[name](ROWS)

    def kinds(state: Any) -> list[Any]:
        return [jax.typeof(leaf) for leaf in jax.tree.leaves(state) if leaf.ndim]

    state = tx.init(params)
    updates, after = jax.jit(tx.update)(params, state, params)
    assert jax.typeof(updates) == jax.typeof(params)
    assert kinds(after) == kinds(state)
    assert kinds(state) == [jax.typeof(params)] * 2


@both
def test_masked_leaves_are_invisible_and_stay_as_they_are(name: str) -> None:
    tx = optax.masked(BUILD[name](L1), {"kernel": True, "table": False})
    params = make_params()
    updates, state = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(updates["table"], params["table"])
    alone = BUILD[name](L1)
    only = {"kernel": params["kernel"]}
    expected, _ = alone.update(only, alone.init(only), only)
    np.testing.assert_array_equal(updates["kernel"], expected["kernel"])
    tx.update(params, state, params)


@both
def test_a_complex_free_leaf_goes_down_its_gradient(name: str) -> None:
    params = {"kernel": jnp.ones(2), "wave": jnp.array([1 + 2j, -1j])}
    grads = {"kernel": jnp.ones(2), "wave": jnp.array([0.5 - 1j, 0.0])}
    tx = BUILD[name](jaxreg.on_kernels(L1))
    updates, _ = tx.update(grads, tx.init(params), params)
    rate = 0.2 if name == "dual_average" else 0.5 / (1 + np.abs(grads["wave"]))
    np.testing.assert_allclose(updates["wave"], -rate * grads["wave"], rtol=1e-6)
    assert updates["wave"].dtype == params["wave"].dtype


@both
def test_an_nnx_optimizer_trains_the_kernels_of_a_model(name: str) -> None:
    model = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
    tx = BUILD[name](jaxreg.on_kernels(jaxreg.L1(100.0)))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for _ in range(2):
        grads = nnx.grad(lambda m: jnp.sum((m(jnp.ones((3, 4))) - 1) ** 2))(model)
        optimizer.update(model, grads)
    assert not np.any(model.kernel[...]) and np.all(model.bias[...] != 0)


@both
@pytest.mark.parametrize(
    "penalty",
    [
        jaxreg.MCP(0.5, 2.0),
        jaxreg.L0(0.5),
        jaxreg.TopK(2),
        jaxreg.by_path([("a", L1), ("b", jaxreg.LogSum(0.2, 0.5))]),
    ],
    ids=repr,
)
def test_a_penalty_that_is_not_convex_raises(name: str, penalty: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name}: .* is not convex.*regularize"):
        BUILD[name](penalty)


@both
def test_wrong_use_raises(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: .*has no prox, only a gradient"):
        BUILD[name](jaxreg.HoyerSquare(1.0))
    with pytest.raises(TypeError, match=f"{name}: schedule is 0.5; allowed: a functio"):
        BUILD[name](L1, schedule=0.5)
    tx, params = BUILD[name](L1), make_params()
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"a sum of shape \(8, 3\) for leaf 'kernel'"):
        other = {**params, "kernel": jnp.ones((2, 3))}
        tx.update(other, state, other)
    with pytest.raises(ValueError, match="the state and params differ in structure"):
        only = {"kernel": params["kernel"]}
        tx.update(only, state, only)
    # Nothing raises in init, since Optax also calls it with placeholders.
    lost = BUILD[name](jaxreg.by_path([("nowhere", L1)]))
    state = lost.init(params)
    with pytest.raises(ValueError, match=r"'nowhere'.*matches no leaf"):
        lost.update(params, state, params)
