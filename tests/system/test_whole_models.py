"""Whole models, as Equinox has them, whose leaves include what is no parameter."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from experiments.kit.transformations import TRANSFORMATIONS
from tests.support import ways
from tests.support.trees import assert_equal


@dataclasses.dataclass
class Layer:
    """A layer as Equinox writes one: all its fields are children of the node."""

    kernel: Any
    bias: Any
    activation: Any = jnp.tanh
    name: Any = "linear"
    width: Any = 2
    key: Any = dataclasses.field(default_factory=lambda: jax.random.key(0))


FIELDS = [field.name for field in dataclasses.fields(Layer)]
jax.tree_util.register_dataclass(Layer, FIELDS, [])


def model() -> dict[str, Layer]:
    kernel = jnp.array([[1.0, -2.0], [0.01, 0.02], [3.0, 0.5]])
    return {name: Layer(kernel, jnp.ones(2)) for name in ("body", "head")}


def is_inexact(leaf: Any) -> bool:
    is_array = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    return bool(is_array)


def filtered(tree: Any) -> Any:
    """`eqx.filter(tree, eqx.is_inexact_array)`."""
    return jax.tree.map(lambda leaf: leaf if is_inexact(leaf) else None, tree)


GRADS = jax.tree.map(lambda leaf: 0.1 * leaf, filtered(model()))


def rules(way: str) -> Any:
    return jaxreg.by_path([("kernel$", ways.penalty(way))])


every_way = pytest.mark.parametrize("way", TRANSFORMATIONS)


@every_way
@pytest.mark.parametrize("started", [filtered, lambda tree: tree], ids=["filter", "it"])
def test_a_whole_model_gets_the_updates_of_its_arrays(
    way: str, started: Callable[[Any], Any]
) -> None:
    tx = ways.build(way, rules(way))
    expected, wanted = tx.update(GRADS, tx.init(filtered(model())), filtered(model()))
    updates, state = tx.update(GRADS, tx.init(started(model())), model())
    assert_equal(updates, expected)
    assert_equal(state, wanted)
    assert jax.tree.structure(updates) == jax.tree.structure(GRADS)


@every_way
def test_a_penalty_on_all_leaves_leaves_the_others_free(way: str) -> None:
    penalty = ways.penalty(way)
    tree = {"w": model()["body"].kernel, "f": jnp.tanh, "count": jnp.arange(3)}
    grads = {"w": 0.1 * tree["w"], "f": None, "count": None}
    tx = ways.build(way, penalty)
    alone = ways.first(way, penalty, {"w": tree["w"]}, {"w": grads["w"]})[0]
    for start in ({**tree, "count": None}, {**tree, "count": None, "f": None}):
        updates, _ = tx.update(grads, tx.init(start), tree)
        assert updates["f"] is None and updates["count"] is None
        np.testing.assert_array_equal(updates["w"], alone["w"])


@every_way
def test_a_frozen_layer_keeps_no_update(way: str) -> None:
    frozen = {"head": model()["head"], "body": jax.tree.map(lambda _: None, GRADS)}
    frozen["body"] = Layer(*[None] * len(FIELDS))
    grads = {"head": GRADS["head"], "body": frozen["body"]}
    tx = ways.build(way, rules(way))
    state = tx.init(filtered(frozen))
    updates, new = tx.update(grads, state, model())
    assert jax.tree.structure(updates) == jax.tree.structure(grads)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    alone = ways.first(way, rules(way), filtered(frozen), grads)[0]
    assert_equal(updates, alone)


def test_a_leaf_absent_at_init_is_named_as_such() -> None:
    tx = jaxreg.regularize(optax.sgd(0.1), rules("regularize"))
    start = filtered(model())
    start["body"].kernel = None
    state = tx.init(start)
    with pytest.raises(ValueError, match=r"'body/kernel' had no array when the state"):
        tx.update(GRADS, state, model())


def test_an_update_without_params_shows_the_line_to_write() -> None:
    tx = jaxreg.regularize(optax.sgd(0.1), rules("regularize"))
    line = "updates, state = tx.update(grads, state, params)"
    text = f"{line}; for an Equinox model params is eqx.filter(model, eqx.is_inexact_ar"
    with pytest.raises(ValueError, match=re.escape(text)):
        tx.update(GRADS, tx.init(filtered(model())))


MISFITS: dict[str, tuple[str, Any]] = {
    "a leaf too few": ("updates has nothing at 'body/kernel'", {"body": {"bias": 1.0}}),
    "a leaf too many": (
        "updates has more than params, at 'body/more'",
        {"body": {"bias": 1.0, "kernel": 1.0, "more": 1.0}},
    ),
    "another container": (
        "updates is a dict with other containers than params",
        {"body": Layer(1.0, 1.0, *[None] * 4)},
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_structure_error_names_the_first_path(misfit: str) -> None:
    message, updates = MISFITS[misfit]
    params = {"body": {"bias": jnp.ones(2), "kernel": jnp.ones((500, 2))}}
    tx = jaxreg.regularize(optax.sgd(0.1), jaxreg.L1(0.1))
    with pytest.raises(ValueError, match=f"{re.escape(message)}.{{0,80}}$"):
        tx.update(updates, tx.init(params), params)


def test_hyperparameters_inside_regularize_are_reachable() -> None:
    inner = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
    tx = jaxreg.regularize(inner, jaxreg.L1(0.1))
    params = jnp.ones(2)
    state = tx.init(params)
    state.hyperparams["learning_rate"] = jnp.asarray(0.0)
    updates, state = tx.update(jnp.ones(2), state, params)
    np.testing.assert_allclose(updates, 0.0, atol=2e-7)  # of the latent's rounding
    assert float(state.hyperparams["learning_rate"]) == 0.0


def test_hyperparams_of_a_plain_optimizer_are_no_attribute() -> None:
    state = jaxreg.regularize(optax.sgd(0.1), jaxreg.L1(0.1)).init(jnp.ones(2))
    assert not hasattr(state, "hyperparams")
