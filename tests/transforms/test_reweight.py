"""`reweight`: the solution of the logarithmic penalty, by any way to apply a weight."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support.training import history, train

EPS, STRENGTH = 0.2, 0.5
GOAL = np.array([[3.0, -1.5, 0.4, -0.2], [0.8, 0.05, -2.0, 0.3]])
BUILDS = {
    "regularize": lambda p: jaxreg.regularize(optax.adam(cosine(0.02)), p, width=0.2),
    "prox_sgd": lambda p: jaxreg.prox_sgd(0.1, p),
    "prox_adam": lambda p: jaxreg.prox_adam(cosine(0.02), p),
    "add_penalty_gradient": lambda p: optax.chain(
        jaxreg.add_penalty_gradient(p), optax.sgd(cosine(0.1))
    ),
}


def cosine(peak: float) -> optax.Schedule:
    return optax.cosine_decay_schedule(peak, 4000)


def grads_of(x: Any) -> Any:
    return x - GOAL


def trained(tx: Any, start: Any = 0 * GOAL) -> Any:
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, train(tx, grads_of, start, 4000))


@pytest.mark.parametrize("name", BUILDS)
def test_it_ends_at_a_stationary_point_of_log_sum(name: str) -> None:
    tx = jaxreg.reweight(BUILDS[name], jaxreg.L1(STRENGTH), EPS, every=50)
    # Where the gradient is 0 at the start, prox_adam leaves an entry alone.
    x, _ = trained(tx, 1.5 * GOAL)
    with jax.enable_x64(True):
        log_sum = jaxreg.LogSum(STRENGTH * EPS, EPS)
        pull = np.asarray(log_sum.stationarity(jnp.asarray(x), x - GOAL))
    # A subgradient in the loss hovers about zeros by its learning rate.
    is_smooth = name == "add_penalty_gradient"
    kept = np.abs(x) > 0.1 if is_smooth else x != 0
    assert pull[kept].max() < 1e-5
    # By hand: x + strength eps / (x + eps) = goal, where that has a root.
    np.testing.assert_array_equal(kept, np.abs(GOAL) > 0.45)
    size = np.abs(GOAL[kept])
    root = (size - EPS + np.sqrt((size + EPS) ** 2 - 4 * STRENGTH * EPS)) / 2
    np.testing.assert_allclose(np.abs(x[kept]), root, atol=1e-5)
    if not is_smooth:
        assert pull.max() < 1e-5


def test_groups_are_weighed_by_their_root_mean_square() -> None:
    penalty = jaxreg.GroupLasso(STRENGTH, group_axis=0)
    tx = jaxreg.reweight(BUILDS["prox_sgd"], penalty, EPS, every=50)
    x, state = trained(tx, GOAL)
    rms = np.sqrt(np.mean(x**2, axis=1, keepdims=True))
    np.testing.assert_allclose(state.penalty_weights, EPS / (rms + EPS), rtol=1e-12)
    with jax.enable_x64(True):
        other = jaxreg.grouped(jaxreg.LogSum(STRENGTH * EPS, EPS), group_axis=0)
        pull = np.asarray(other.stationarity(jnp.asarray(x), x - GOAL))
    assert pull.max() < 1e-9


def test_weights_start_at_one_and_change_every_few_updates() -> None:
    tx = jaxreg.reweight(BUILDS["prox_sgd"], jaxreg.L1(STRENGTH), EPS, every=3)
    x = jnp.asarray(GOAL, jnp.float32)
    # In float32, as the rest of this test: GOAL is float64.
    path, states = history(tx, lambda x: x - jnp.asarray(GOAL, x.dtype), x, 8)
    before = np.concatenate([x[None], path])
    for count, weights in enumerate(states.penalty_weights):
        last = 3 * (count // 3)
        expected = EPS / (np.abs(before[last]) + EPS) if last else np.ones(GOAL.shape)
        np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_the_first_phase_is_the_plain_penalty() -> None:
    tx = jaxreg.reweight(BUILDS["regularize"], jaxreg.L1(STRENGTH), EPS, every=5000)
    x, _ = trained(tx)
    expected = np.sign(GOAL) * np.maximum(np.abs(GOAL) - STRENGTH, 0)
    np.testing.assert_allclose(x, expected, atol=1e-6)
    np.testing.assert_array_equal(x == 0, expected == 0)


def test_rules_leave_other_leaves_free() -> None:
    rules = jaxreg.by_path(
        [
            ("^a$", jaxreg.GroupLasso(STRENGTH, group_axis=1)),
            ("^b$", jaxreg.L1(STRENGTH)),
        ]
    )
    tx = jaxreg.reweight(BUILDS["prox_sgd"], rules, EPS, every=1)
    params = {name: jnp.asarray(GOAL, jnp.float32) for name in "abc"}
    state = tx.init(params)
    for _ in range(3):
        _, state = tx.update(params, state, params)
    weights = state.penalty_weights
    assert weights["a"].shape == (1, 4) and weights["b"].shape == (2, 4)
    assert weights["c"] == optax.MaskedNode()
    assert np.all(np.asarray(weights["b"]) < 1)


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        (
            jaxreg.GroupLasso(STRENGTH, group_axis=0),
            jaxreg.L1(STRENGTH),
            r"weights of shape \(2, 1\) for leaf 'a', and its penalty needs \(2, 4\)",
        ),
        (
            jaxreg.L1(STRENGTH),
            jaxreg.GroupLasso(STRENGTH, group_axis=1),
            r"weights of shape \(2, 4\) for leaf 'a', and its penalty needs \(1, 4\)",
        ),
        (
            jaxreg.by_path([("b", jaxreg.L1(STRENGTH))]),
            jaxreg.L1(STRENGTH),
            "weights of shape None for leaf 'a', and its penalty needs",
        ),
    ],
    ids=["rows, then entries", "entries, then columns", "free, then penalised"],
)
def test_a_state_of_other_rules_raises_naming_the_leaf(then, now, message) -> None:
    params = {name: jnp.asarray(GOAL, jnp.float32) for name in "ab"}
    state = jaxreg.reweight(BUILDS["prox_sgd"], then, EPS, every=5).init(params)
    tx = jaxreg.reweight(BUILDS["prox_sgd"], now, EPS, every=5)
    with pytest.raises(ValueError, match=f"reweight: .*{message}"):
        tx.update(params, state, params)
    tx.update(params, tx.init(params), params)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"eps": 0.0}, ValueError, "reweight: eps is 0.0"),
        ({"every": 0}, ValueError, "every is 0; allowed: an int >= 1"),
        ({"every": True}, TypeError, "every is True; allowed: an int >= 1"),
        ({"every": 1.5}, TypeError, "every is 1.5; allowed"),
        (
            {"penalty": jaxreg.SLOPE(jnp.array([1.0]))},
            TypeError,
            "allowed are penalties on sing",
        ),
        ({"penalty": jaxreg.TopK(3)}, TypeError, "allowed are penalties on single"),
        ({"build": lambda p: p}, TypeError, "build gave Weighted"),
        ({"penalty": 1.0}, TypeError, "penalty is 1.0"),
    ],
)
def test_bad_arguments_raise_with_the_fix(change, error, message) -> None:
    arguments = {
        "build": BUILDS["prox_sgd"],
        "penalty": jaxreg.L1(1.0),
        "eps": 0.1,
        "every": 10,
    }
    with pytest.raises(error, match=message):
        jaxreg.reweight(**(arguments | change))
