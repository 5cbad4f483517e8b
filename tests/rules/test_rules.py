"""Rules select the same leaves in every framework, and never miss one in silence."""

import equinox as eqx
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxreg
from jaxreg.rules import by_path as rules

L1, L2 = jaxreg.L1(1.0), jaxreg.L2(1.0)


class LinenNet(flax.linen.Module):
    """Two dense layers with a norm between them."""

    @flax.linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return flax.linen.Dense(2)(flax.linen.LayerNorm()(flax.linen.Dense(3)(x)))


class NnxNet(nnx.Module):
    """The same, in NNX."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(4, 3, rngs=rngs)
        self.norm = nnx.LayerNorm(3, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(3, 2, rngs=rngs)])


class Gate(eqx.Module):
    """An Equinox module with a parameter that is named `value`."""

    value: jax.Array
    weight: jax.Array


def linen_params():
    return LinenNet().init(jax.random.key(0), jnp.ones((1, 4)))["params"]


class Scale(eqx.Module):
    """An Equinox module whose only leaf is named `value`."""

    value: jax.Array


class Frozen(nnx.Param):
    """A user's own kind of variable."""


def caught(penalty: jaxreg.Penalty, params) -> dict[str, jaxreg.Penalty]:
    """The penalty of each leaf that a rule catches, by path."""
    leaves = rules.Leaves(penalty, params)
    return {leaves.names[index]: inner for index, inner in leaves.penalised.items()}


def test_on_kernels_catches_the_kernels_of_linen() -> None:
    found = caught(jaxreg.on_kernels(L1), linen_params())
    assert found == {"Dense_0/kernel": L1, "Dense_1/kernel": L1}


def test_on_kernels_matches_linen_kernels_in_their_collection() -> None:
    found = caught(jaxreg.on_kernels(L1), {"params": linen_params()})
    assert list(found) == ["params/Dense_0/kernel", "params/Dense_1/kernel"]


def test_on_kernels_wants_the_whole_name() -> None:
    params = {"my_kernel": 1.0, "kernel_init": 1.0, "kernel": {"scale": 1.0}}
    with pytest.raises(ValueError, match="matches no leaf"):
        rules.read(jaxreg.on_kernels(L1), params)
    assert caught(jaxreg.on_kernels(L1), params | {"a": {"kernel": 1.0}}) == {
        "a/kernel": L1
    }


@pytest.mark.parametrize("purify", [lambda state: state, nnx.as_pure, nnx.to_pure_dict])
def test_paths_of_nnx_are_those_of_its_attributes(purify) -> None:
    state = purify(nnx.state(NnxNet(nnx.Rngs(0)), nnx.Param))
    assert sorted(rules.paths(state)) == [
        "blocks/0/bias",
        "blocks/0/kernel",
        "first/bias",
        "first/kernel",
        "norm/bias",
        "norm/scale",
    ]
    found = caught(jaxreg.on_kernels(L1), state)
    assert sorted(found) == ["blocks/0/kernel", "first/kernel"]


@pytest.mark.parametrize("purify", [lambda state: state, nnx.as_pure, nnx.to_pure_dict])
def test_a_submodule_named_value_keeps_its_name(purify) -> None:
    attention = nnx.MultiHeadAttention(2, 4, 4, decode=False, rngs=nnx.Rngs(0))
    state = purify(nnx.state(attention, nnx.Param))
    assert "value/kernel" in rules.paths(state)
    only = jaxreg.by_path([(r"^value/kernel$", L1)])
    assert caught(only, state) == {"value/kernel": L1}


def test_penalties_give_the_same_with_and_without_variables() -> None:
    state = nnx.state(NnxNet(nnx.Rngs(0)), nnx.Param)
    penalty = jaxreg.on_kernels(L1)
    assert penalty.value(state) == penalty.value(nnx.as_pure(state))
    proxes = (penalty.prox(params, 0.1) for params in (state, nnx.as_pure(state)))
    one, other = (jax.tree.leaves(prox) for prox in proxes)
    for leaf, expected in zip(one, other, strict=True):
        np.testing.assert_array_equal(leaf, expected)


def test_equinox_leaves_are_caught_by_their_attributes() -> None:
    model = eqx.filter(eqx.nn.MLP(2, 2, 3, 1, key=jax.random.key(0)), eqx.is_array)
    found = caught(jaxreg.by_path([(r"weight$", L1)]), model)
    assert found == {"layers/0/weight": L1, "layers/1/weight": L1}
    shrunk = jaxreg.by_path([(r"weight$", L1)]).prox(model, 100.0)
    assert not np.any(shrunk.layers[0].weight)
    np.testing.assert_array_equal(shrunk.layers[0].bias, model.layers[0].bias)


def test_an_equinox_leaf_named_value_keeps_its_name() -> None:
    model = {"gate": Gate(jnp.ones(2), jnp.ones(3))}
    assert rules.paths(model) == ["gate/value", "gate/weight"]


@pytest.mark.parametrize(
    "params, path",
    [
        (Scale(jnp.ones(2)), "value"),
        ({"scale": Scale(jnp.ones(2))}, "scale/value"),
        (Scale(Scale(jnp.ones(2))), "value/value"),
        (nnx.Param(jnp.ones(2)), ""),
        ({"scale": Frozen(jnp.ones(2))}, "scale"),
        ({"scale": nnx.Param({"a": jnp.ones(2)})}, "scale/a"),
        ({"scale": flax.linen.Partitioned(jnp.ones(2), ("rows",))}, "scale"),
        ({"scale": flax.linen.LogicallyPartitioned(jnp.ones(2), ("rows",))}, "scale"),
        (nnx.Param(Scale(jnp.ones(2))), "value"),
    ],
)
def test_only_variables_of_flax_lose_the_name_value(params, path) -> None:
    assert rules.paths(params) == [path]
    assert caught(jaxreg.by_path([(path + "$", L1)]), params) == {path: L1}


def test_lists_and_tuples_are_caught_by_their_indices() -> None:
    params = [jnp.ones(2), (jnp.ones(3), {"a": jnp.ones(1)})]
    assert rules.paths(params) == ["0", "1/0", "1/1/a"]
    assert caught(jaxreg.by_path([(r"^1/", L1)]), params) == {"1/0": L1, "1/1/a": L1}


def test_a_single_array_has_the_empty_path() -> None:
    assert rules.paths(jnp.ones(2)) == [""]
    assert jaxreg.by_path([("", L1)]).value(jnp.ones(2)) == 2.0


def test_patterns_search_anywhere_in_the_path() -> None:
    params = {"encoder": {"w": 1.0}, "decoder": {"w": 1.0}}
    assert list(caught(jaxreg.by_path([("ode", L1)]), params)) == [
        "decoder/w",
        "encoder/w",
    ]
    assert list(caught(jaxreg.by_path([("^enc.*w$", L1)]), params)) == ["encoder/w"]


def test_the_first_match_wins() -> None:
    penalty = jaxreg.by_path([("Dense_0", L2), ("kernel", L1)])
    assert caught(penalty, linen_params()) == {
        "Dense_0/bias": L2,
        "Dense_0/kernel": L2,
        "Dense_1/kernel": L1,
    }


def test_leaves_that_no_rule_catches_are_free() -> None:
    params = {"bias": jnp.array([2.0, -0.5]), "kernel": jnp.array([3.0])}
    grads = {"bias": jnp.array([-1.0, 0.25]), "kernel": jnp.array([-1.0])}
    penalty = jaxreg.on_kernels(L1)
    assert penalty.value(params) == 3.0
    np.testing.assert_array_equal(penalty.subgradient(params)["bias"], [0.0, 0.0])
    np.testing.assert_array_equal(penalty.prox(params, 9.0)["bias"], params["bias"])
    distances = penalty.stationarity(params, grads)
    np.testing.assert_array_equal(distances["bias"], [1.0, 0.25])
    np.testing.assert_array_equal(distances["kernel"], [0.0])


def test_a_rule_sums_its_penalty_over_all_its_leaves() -> None:
    params = {"a": jnp.full((2, 2), 2.0), "b": jnp.full((3,), 1.0), "c": jnp.ones(4)}
    penalty = jaxreg.by_path([("^[ab]$", jaxreg.L1(0.5)), ("c", jaxreg.L2(0.25))])
    assert penalty.value(params) == 0.5 * (8 + 3) + 0.25 * 4


def test_step_for_returns_a_tree_that_is_a_step_of_prox() -> None:
    params = {"bias": jnp.ones(2), "a": jnp.full(3, 0.1), "b": jnp.full((), 0.1)}
    penalty = jaxreg.by_path([("^a$", jaxreg.L1(0.5)), ("^b$", jaxreg.L2(4.0))])
    steps = penalty.step_for(0.05, params)
    assert {name: float(step) for name, step in steps.items()} == pytest.approx(
        {"bias": 0.0, "a": 0.1, "b": 0.125}
    )
    out = penalty.prox(params, steps)
    np.testing.assert_array_equal(out["bias"], params["bias"])
    # One subtraction and one quotient in float32.
    np.testing.assert_allclose(out["a"], np.full(3, 0.05), rtol=2e-7)
    np.testing.assert_allclose(out["b"], 0.05, rtol=2e-7)


def test_step_for_without_params_raises() -> None:
    with pytest.raises(ValueError, match=r"step_for\(width, params\)"):
        jaxreg.on_kernels(L1).step_for(0.05)


def test_facts_of_rules_are_those_of_all_their_penalties() -> None:
    penalty = jaxreg.by_path([("a", L1), ("b", jaxreg.GroupLasso(1.0, 0))])
    assert (penalty.facts.is_convex, penalty.facts.varying_step) == (True, True)
    assert not penalty.facts.is_joint
    assert penalty.facts.stationarity_kind == "distance"
    assert penalty.layout.unit_count((3, 2)) is None
    assert (penalty.facts.has_prox, penalty.facts.prox_tolerance) == (True, 0.0)


USES = {
    "value": lambda penalty, params: penalty.value(params),
    "prox": lambda penalty, params: penalty.prox(params, 1.0),
    "subgradient": lambda penalty, params: penalty.subgradient(params),
    "stationarity": lambda penalty, params: penalty.stationarity(params, params),
    "step_for": lambda penalty, params: penalty.step_for(0.1, params),
    "describe": jaxreg.describe,
    "summary": jaxreg.summary,
    "update": lambda penalty, params: (
        tx := jaxreg.add_penalty_gradient(penalty)
    ).update(params, tx.init(params), params),
}


@pytest.mark.parametrize("use", USES)
def test_a_rule_that_matches_nothing_raises_with_the_paths(use: str) -> None:
    penalty = jaxreg.by_path([("kernel$", L1), ("Dense_7", L1)])
    message = (
        r"the rule 'Dense_7' \(L1\(strength=1.0\)\) matches no leaf. Leaves: "
        r"'Dense_0/bias', 'Dense_0/kernel'.*masks.*invisible"
    )
    with pytest.raises(ValueError, match=message):
        USES[use](penalty, {"Dense_0": linen_params()["Dense_0"]})


@pytest.mark.parametrize("use", USES)
def test_a_rule_shadowed_by_another_raises_with_the_paths(use: str) -> None:
    penalty = jaxreg.by_path([("Dense", L1), ("Dense_0/kernel", L2)])
    message = "only leaves that earlier rules take: 'Dense_0/kernel'. Leaves: "
    with pytest.raises(ValueError, match=message):
        USES[use](penalty, {"Dense_0": linen_params()["Dense_0"]})


def test_a_rule_on_leaves_that_optax_masks_raises() -> None:
    params = {"bias": jnp.ones(2), "kernel": optax.MaskedNode()}
    with pytest.raises(ValueError, match=r"optax.masked.*invisible here"):
        jaxreg.on_kernels(L1).value(params)
    with pytest.raises(ValueError, match="Leaves: none"):
        jaxreg.on_kernels(L1).value({"kernel": optax.MaskedNode()})


def test_a_missing_match_is_no_error_in_init() -> None:
    tx = jaxreg.regularize(optax.sgd(0.1), jaxreg.on_kernels(L1))
    state = tx.init({"bias": jnp.ones(2)})
    assert state.latent == {"bias": optax.MaskedNode()}


def test_nested_rules_raise() -> None:
    with pytest.raises(ValueError, match=r"the rule .a. names another by_path.*nest"):
        jaxreg.by_path([("a", jaxreg.on_kernels(L1))])


def test_no_rules_raise() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        jaxreg.by_path([])


@pytest.mark.parametrize("pattern", ["(", "*", None, 3])
def test_a_pattern_that_is_no_regular_expression_raises(pattern) -> None:
    with pytest.raises(ValueError, match=r"by_path: .* is no regular expression"):
        jaxreg.by_path([(pattern, L1)])


def test_rules_may_come_from_a_generator() -> None:
    penalty = jaxreg.by_path((name, L1) for name in ("a", "b"))
    assert penalty.value({"a": jnp.ones(1), "b": jnp.ones(1)}) == 2.0


def test_grads_of_another_structure_raise() -> None:
    params = {"kernel": jnp.ones(2)}
    with pytest.raises(ValueError, match="grads and params differ in structure"):
        jaxreg.on_kernels(L1).stationarity(params, [jnp.ones(2)])


@pytest.mark.parametrize("rules", [[], ["kernel"], {"kernel": jaxreg.L1(1.0)}, [[1]]])
def test_rules_that_are_no_pairs_raise(rules) -> None:
    with pytest.raises(ValueError, match=r"a list of at least one pair \(pattern"):
        jaxreg.by_path(rules)
