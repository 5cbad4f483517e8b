"""`regularize` and `add_penalty_gradient` on some leaves: partition, masked, freeze."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support.training import train
from tests.support.trees import assert_equal

PENALTY = jaxreg.L1(0.25)
TARGET = {"body": jnp.array([2.0, 0.1, -2.0]), "head": jnp.array([1.0, -0.1])}
# Of half the squared distance plus the penalty.
SOLUTION = {"body": np.array([1.75, 0.0, -1.75]), "head": np.array([0.75, 0.0])}


def make_params() -> Any:
    return {"body": jnp.array([1.0, -1.0, 0.5]), "head": jnp.array([-0.5, 0.25])}


def grads_of(params: Any) -> Any:
    return jax.tree.map(jnp.subtract, params, TARGET)


def trained(tx: Any, steps: int, params: Any = None, state: Any = None) -> Any:
    return train(tx, grads_of, params or make_params(), steps, state)


def is_body(params: Any) -> Any:
    return {name: name == "body" for name in params}


def make(name: str) -> Any:
    if name == "regularize":
        return jaxreg.regularize(optax.sgd(0.1), PENALTY)
    return optax.chain(jaxreg.add_penalty_gradient(PENALTY), optax.sgd(0.1))


both = pytest.mark.parametrize("name", ["regularize", "add_penalty_gradient"])


@both
def test_partition_gives_each_leaf_its_own_transform(name: str) -> None:
    def labels(params: Any) -> Any:
        return {name: "penalised" if name == "body" else "plain" for name in params}

    parts = {"penalised": make(name), "plain": optax.sgd(0.1)}
    tx = optax.partition(parts, labels)
    params, _ = trained(tx, 5)
    alone, plain = make(name), optax.sgd(0.1)
    full, _ = trained(alone, 5)
    free, _ = trained(plain, 5)
    assert_equal(params, {"body": full["body"], "head": free["head"]})


@both
def test_masked_with_a_function_penalises_the_chosen_leaf_only(name: str) -> None:
    tx, params = optax.masked(make(name), is_body), make_params()
    updates, _ = tx.update(params, tx.init(params), params)
    alone, _ = make(name).update(params, make(name).init(params), params)
    # Masked passes the gradients of the other leaves on as they are.
    assert_equal(updates, {"body": alone["body"], "head": params["head"]})


def test_a_rule_for_a_leaf_that_masked_hides_raises() -> None:
    rules = jaxreg.by_path([("head", PENALTY)])
    tx = optax.masked(jaxreg.regularize(optax.sgd(0.1), rules), is_body)
    params = make_params()
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"matches no leaf.*'body'.*masks.*invisible"):
        tx.update(params, state, params)


@pytest.mark.parametrize("steps", [1, 40])
def test_freeze_outside_keeps_the_leaf_bit_equal(steps: int) -> None:
    tx = optax.chain(make("regularize"), optax.freeze(is_body))
    params, _ = trained(tx, steps)
    np.testing.assert_array_equal(params["body"], make_params()["body"])
    assert np.any(params["head"] != make_params()["head"])


def test_a_released_leaf_goes_on_from_where_it_was_frozen() -> None:
    tx = make("regularize")
    frozen = optax.chain(tx, optax.freeze(is_body))
    params, (state, _) = trained(frozen, 40)
    one, _ = trained(tx, 1, params, state)
    fresh, _ = trained(tx, 1)
    # Its latent is made anew from the params, or is one rounding away from them:
    # within 4 eps of |w| + width, which the first step then carries along.
    slack = 8 * np.finfo(np.float32).eps
    np.testing.assert_allclose(one["body"], fresh["body"], rtol=slack, atol=slack)
    last, _ = trained(tx, 400, params, state)
    # 0.9 ** 400 of the distance is left: nothing; rounding is what remains.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6), last, SOLUTION)


def test_freeze_inside_keeps_the_leaf_up_to_one_rounding() -> None:
    inner = optax.chain(optax.sgd(0.1), optax.freeze(is_body))
    tx = jaxreg.regularize(inner, PENALTY, width=0.05)
    params, state = trained(tx, 1)
    start = np.abs(make_params()["body"])
    # The params become prox(z0), which is them within eps * (|w| + width).
    bound = np.finfo(np.float32).eps * (start + 0.05)
    assert np.all(np.abs(params["body"] - make_params()["body"]) <= bound)
    later, _ = trained(tx, 40, params, state)
    np.testing.assert_array_equal(later["body"], params["body"])
    assert np.any(later["head"] != make_params()["head"])
