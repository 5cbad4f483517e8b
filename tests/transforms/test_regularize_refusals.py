"""Errors of `regularize`, and its latent read from any optimizer state."""

import re
from typing import Any

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg

PENALTY = jaxreg.L1(0.1)
PARAMS = {"body": jnp.array([1.0, -1.0]), "head": jnp.array([0.5])}


def updated(tx: Any, params: Any = None, state: Any = None, grads: Any = None) -> Any:
    params = PARAMS if params is None else params
    state = tx.init(params) if state is None else state
    return tx.update(params if grads is None else grads, state, params)


SEARCHES = {
    "lbfgs": optax.lbfgs,
    "backtracking": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10)
    ),
    "zoom": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_zoom_linesearch(max_linesearch_steps=10)
    ),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_a_line_search_inside_raises_with_the_fix(search: str) -> None:
    tx = jaxreg.regularize(SEARCHES[search](), PENALTY)
    with pytest.raises(ValueError, match=r"line search.*linesearch=None"):
        updated(tx)


def test_lbfgs_without_its_line_search_works_as_the_message_says() -> None:
    tx = jaxreg.regularize(optax.lbfgs(1e-1, linesearch=None), PENALTY)
    updates, _ = updated(tx)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


def test_lookahead_inside_raises_with_the_fix() -> None:
    inner = optax.lookahead(optax.sgd(0.1), sync_period=2, slow_step_size=0.5)
    tx = jaxreg.regularize(inner, PENALTY)
    params = optax.LookaheadParams.init_synced(PARAMS)
    with pytest.raises(ValueError, match=r"lookahead inside.*Use the optimizer that"):
        tx.update(PARAMS, tx.init(params), params)


@pytest.mark.parametrize("width", [0, 0.0, -0.1, float("nan"), float("inf")])
def test_a_width_that_is_not_positive_and_finite_raises(width: float) -> None:
    with pytest.raises(ValueError, match=r"width is .*; allowed: a"):
        jaxreg.regularize(optax.sgd(0.1), PENALTY, width)


@pytest.mark.parametrize("width", ["0.1", True, None])
def test_a_width_that_is_no_number_raises(width: Any) -> None:
    with pytest.raises(TypeError, match=r"width is .*; allowed: a real number"):
        jaxreg.regularize(optax.sgd(0.1), PENALTY, width)


@pytest.mark.parametrize("schedule", [1.0, jnp.ones(())])
def test_a_schedule_that_is_no_function_raises(schedule: Any) -> None:
    with pytest.raises(TypeError, match=r"schedule is .*allowed: a function of the st"):
        jaxreg.regularize(optax.sgd(0.1), PENALTY, schedule=schedule)


@pytest.mark.parametrize("optimizer", [optax.adam, 1e-3, None, PENALTY])
def test_a_wrong_optimizer_raises(optimizer: Any) -> None:
    with pytest.raises(TypeError, match=r"optimizer is .*allowed: an Optax optimizer"):
        jaxreg.regularize(optimizer, PENALTY)


BUILDERS = {
    "regularize": lambda penalty: jaxreg.regularize(optax.sgd(0.1), penalty),
    "add_penalty_gradient": jaxreg.add_penalty_gradient,
}
both = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


@both
def test_an_unmatched_rule_raises_at_the_first_update_only(
    build: Any,
) -> None:
    tx = build(jaxreg.by_path([("body", PENALTY), ("kernel$", PENALTY)]))
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=r"'kernel\$'.*no leaf.*'body', 'head'"):
        updated(tx, state=state)


@both
def test_a_leaf_the_penalty_cannot_take_is_named(build: Any) -> None:
    tx = build(jaxreg.GroupLasso(0.1, group_axis=0))
    params = {"kernel": jnp.ones((2, 2))}
    state = tx.init(params)
    params = {"kernel": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"leaf 'kernel' of shape \(2,\).*two axes"):
        updated(tx, params, state)


@pytest.mark.parametrize(("then", "now"), [((3,), (2,)), ((4, 3), (1, 3))])
def test_a_state_of_other_shapes_raises(then: Any, now: Any) -> None:
    # The second pair broadcasts: without a check the updates get the wrong shape.
    tx = jaxreg.regularize(optax.sgd(0.1), PENALTY)
    state = tx.init({"body": jnp.ones(then)})
    with pytest.raises(ValueError, match=r"(?s)'body'.*tx\.init"):
        updated(tx, {"body": jnp.ones(now)}, state)


@pytest.mark.parametrize(("then", "now"), [("body", "head"), ("head", "body")])
def test_a_changed_rule_set_raises(then: str, now: str) -> None:
    before = jaxreg.regularize(optax.sgd(0.1), jaxreg.by_path([(then, PENALTY)]))
    after = jaxreg.regularize(optax.sgd(0.1), jaxreg.by_path([(now, PENALTY)]))
    first = "'body' is free and was pen" if then == "body" else "'body' is penalised"
    with pytest.raises(ValueError, match=rf"{first}.*call tx\.init\(params\)"):
        updated(after, state=before.init(PARAMS))


def all_alike(params: Any) -> Any:
    return jax.tree.map(lambda leaf: "all", params)


NORMAL = jaxreg.regularize(optax.adam(1e-2), PENALTY)
NESTED = {
    "alone": NORMAL,
    "chain": optax.chain(optax.clip(1.0), NORMAL),
    "MultiSteps": optax.MultiSteps(NORMAL, 2),
    "inject_hyperparams": optax.inject_hyperparams(
        lambda strength: jaxreg.regularize(optax.adam(1e-2), jaxreg.L1(strength))
    )(strength=0.1),
    "apply_if_finite": optax.apply_if_finite(NORMAL, 3),
    "partition": optax.partition({"all": NORMAL}, all_alike),
    "masked": optax.masked(NORMAL, lambda p: jax.tree.map(lambda leaf: True, p)),
}


@pytest.mark.parametrize("nest", NESTED)
def test_latent_is_found_in_nested_states(nest: str) -> None:
    expected = NORMAL.init(PARAMS)
    latent, inner = jaxreg.latent(NESTED[nest].init(PARAMS))
    # An injected strength is an array: width / strength rounds once more.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-6), latent, expected.latent
    )
    inner_structure = jax.tree.structure(expected.inner_optimizer)
    assert jax.tree.structure(inner) == inner_structure


def test_latent_is_found_in_an_nnx_optimizer() -> None:
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, NORMAL, wrt=nnx.Param)
    latent, _ = jaxreg.latent(optimizer.opt_state)
    expected = NORMAL.init(nnx.to_pure_dict(nnx.state(model, nnx.Param))).latent
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(latent[name][...], expected[name])


def test_latent_has_masked_nodes_on_free_leaves() -> None:
    tx = jaxreg.regularize(optax.adam(1e-2), jaxreg.by_path([("body", PENALTY)]))
    latent, _ = jaxreg.latent(tx.init(PARAMS))
    assert isinstance(latent["head"], optax.MaskedNode)


def test_latent_raises_on_a_state_without_regularize() -> None:
    with pytest.raises(ValueError, match="holds 0 states of regularize; allowed: exac"):
        jaxreg.latent(optax.adam(1e-2).init(PARAMS))


def test_latent_raises_on_a_state_with_two() -> None:
    labels = {"body": "one", "head": "two"}
    two = optax.partition({"one": NORMAL, "two": NORMAL}, labels).init(PARAMS)
    with pytest.raises(ValueError, match=re.escape("holds 2 states of regularize")):
        jaxreg.latent(two)


def test_sam_that_asks_for_gradients_at_latents_raises() -> None:
    sam = optax.contrib.sam(optax.sgd(0.01), optax.sgd(1e-6), opaque_mode=True)
    tx = jaxreg.regularize(sam, jaxreg.L1(0.5))
    params = jnp.ones(3)
    with pytest.raises(ValueError, match="grad_fn gives gradients at latents"):
        tx.update(params, tx.init(params), params, grad_fn=lambda p, _: p)


def test_multisteps_raises_naming_its_gradient_transformation() -> None:
    with pytest.raises(TypeError, match=r"of optax.MultiSteps its gradient_transform"):
        jaxreg.regularize(optax.MultiSteps(optax.adam(1e-3), 2), jaxreg.L1(1.0))
