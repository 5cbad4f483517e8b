"""`coupled`: which leaves a unit has, its norm over them, and what takes it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from jaxreg.compaction._dimensions import Dimension, Member
from jaxreg.compaction.coupled import coupled
from jaxreg.compaction.couplings import Couplings, couplings

L1 = jaxreg.L1(0.05)
INPUTS = jnp.ones((2, 5))


def apply(params: Any, x: jax.Array) -> jax.Array:
    for name in ("first", "second"):
        x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"])
    return x @ params["out"]["kernel"] + params["out"]["bias"]


def random_params(seed: int = 0) -> Any:
    keys = iter(jax.random.split(jax.random.key(seed), 6))
    shapes = {"first": (5, 8), "second": (8, 4), "out": (4, 3)}
    return {
        name: {
            "bias": jax.random.normal(next(keys), shape[1:]),
            "kernel": jax.random.normal(next(keys), shape),
        }
        for name, shape in shapes.items()
    }


PARAMS = random_params()
UNITS = couplings(apply, PARAMS, INPUTS)
PENALTY = coupled(L1, UNITS)


def matrix(params: Any) -> jax.Array:
    """The units of the second layer as rows, with the kernel that reads them."""
    second, out = params["second"], params["out"]
    parts = second["bias"][:, None], second["kernel"].T, out["kernel"]
    return jnp.concatenate(parts, 1)


def model(*dimensions: Dimension) -> Couplings:
    """Couplings with these dimensions, their leaves in the order of the paths."""
    paths = sorted({m.path for each in dimensions for m in each.members})
    return Couplings(apply, dimensions, tuple(paths), ())


def member(path: str, axis: int, units: Any, entries: int, reads: bool = False) -> Any:
    return Member(path, axis, tuple(units), entries, reads)


def close(found: Any, wanted: Any, limit: float) -> None:
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=limit), found, wanted
    )


def leaves_of(penalty: Any) -> list[tuple[str, ...]]:
    """The leaves of each rule."""
    layouts = [each.layout for each in penalty.penalties]
    return [tuple(each.path for each in layout.slices) for layout in layouts]


@pytest.mark.parametrize("step", [0.0, 0.1, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("phi", [jaxreg.L1(0.7), jaxreg.MCP(0.7, 3.0)], ids=repr)
def test_the_prox_is_that_of_groups_of_the_joint_matrix(phi, step) -> None:
    penalty = coupled(phi, UNITS, only="^out")
    rows = jaxreg.grouped(phi, group_axis=0)
    wanted = rows.prox(matrix(PARAMS), step)
    found = matrix(penalty.prox(PARAMS, step))
    # Sums over a unit are made in another order: units of float32.
    np.testing.assert_allclose(found, wanted, atol=5e-7)
    np.testing.assert_array_equal(found == 0, wanted == 0)
    np.testing.assert_allclose(
        penalty.value(PARAMS), rows.value(matrix(PARAMS)), rtol=1e-6
    )


def test_stationarity_is_that_of_groups_of_the_joint_matrix() -> None:
    penalty, rows = coupled(L1, UNITS, only="^out"), jaxreg.GroupLasso(0.05, 0)
    dead = jax.tree.map(lambda x: x.at[..., :2].set(0.0), PARAMS["second"])
    out = PARAMS["out"] | {"kernel": PARAMS["out"]["kernel"].at[:2].set(0.0)}
    params, grads = PARAMS | {"second": dead, "out": out}, random_params(1)
    grads = jax.tree.map(lambda x: 0.04 * x, grads)
    wanted = rows.stationarity(matrix(params), matrix(grads))
    assert int(jnp.sum(wanted == 0)) >= 8
    found = matrix(penalty.stationarity(params, grads))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_leaf_belongs_to_the_units_that_it_makes() -> None:
    assert leaves_of(PENALTY) == [
        ("first/bias", "first/kernel"),
        ("out/kernel", "second/bias", "second/kernel"),
    ]


def test_a_leaf_of_two_dimensions_goes_with_that_of_most_leaves() -> None:
    heads = Dimension(2, tuple(member(name, 0, [0, 1], 3) for name in ("k", "q", "v")))
    width = Dimension(3, (member("v", 1, [0, 1, 2], 2),))
    assert leaves_of(coupled(L1, model(width, heads))) == [("k", "q", "v")]


def test_a_leaf_with_entries_of_no_unit_is_free() -> None:
    dimension = Dimension(
        2, (member("both", 0, [0, 1, -1], 4), member("kernel", 1, [0, 1], 5))
    )
    assert leaves_of(coupled(L1, model(dimension))) == [("kernel",)]


def test_several_slices_of_a_unit_in_one_leaf_are_of_one_norm() -> None:
    # Channels behind a convolution, flattened: every second row is of one channel.
    dimension = Dimension(
        2, (member("conv", 1, [0, 1], 3), member("dense", 0, [0, 1] * 3, 6))
    )
    penalty = coupled(L1, model(dimension))
    params = {
        "conv": jax.random.normal(jax.random.key(0), (3, 2)),
        "dense": jax.random.normal(jax.random.key(1), (6, 2)),
    }
    rows = params["dense"].reshape(3, 2, 2).swapaxes(0, 1).reshape(2, 6)
    joint = jnp.concatenate([params["conv"].T, rows], 1)
    np.testing.assert_allclose(
        penalty.value(params), jaxreg.GroupLasso(0.05, 0).value(joint), rtol=1e-6
    )


def stacked(params: Any, x: jax.Array) -> jax.Array:
    def layer(h: jax.Array, p: Any) -> tuple[jax.Array, None]:
        return h + jax.nn.relu(h @ p["in"] + p["bias"]) @ p["out"], None

    return jax.lax.scan(layer, x, params)[0]


@pytest.mark.slow
def test_each_layer_of_a_scan_has_units_of_its_own() -> None:
    shapes = {"in": (3, 5, 8), "bias": (3, 8), "out": (3, 8, 5)}
    params = {
        name: jax.random.normal(jax.random.key(i), shape)
        for i, (name, shape) in enumerate(shapes.items())
    }
    penalty = coupled(L1, couplings(stacked, params, INPUTS))
    joint = jnp.concatenate(
        [params["bias"][..., None], params["in"].swapaxes(1, 2), params["out"]], 2
    )
    wanted = jaxreg.GroupLasso(0.05, group_axis=(0, 1)).prox(joint, 20.0)
    found = penalty.prox(params, 20.0)["out"]
    np.testing.assert_allclose(found, wanted[..., 6:], atol=1e-6)
    assert jaxreg.describe(penalty, params).rows[0]["groups"] == 24


def half(params: Any) -> Any:
    """The first four units of the first layer: the others are removed."""
    first = jax.tree.map(lambda x: x[..., :4], params["first"])
    second = params["second"] | {"kernel": params["second"]["kernel"][:4]}
    return params | {"first": first, "second": second}


@pytest.mark.slow
def test_units_that_are_removed_leave_the_penalty_as_it_was() -> None:
    entries = {m: m.entries for each in UNITS.removable for m in each.members}
    smaller = tuple(
        Dimension(
            4,
            tuple(
                member(m.path, m.axis, range(4), entries[m], m.is_contracted)
                for m in each.members
            ),
        )
        for each in UNITS.removable
    )
    penalty = coupled(jaxreg.MCP(0.05, 3.0), model(*smaller))
    dense = coupled(jaxreg.MCP(0.05, 3.0), UNITS)
    dead = jax.tree.map(lambda x: x.at[..., 4:].set(0.0), PARAMS["first"])
    reads = PARAMS["second"]["kernel"].at[4:].set(0.0)
    params = PARAMS | {"first": dead, "second": PARAMS["second"] | {"kernel": reads}}
    grads = random_params(1)

    @jax.jit
    def methods(p: Any, x: Any, g: Any) -> Any:
        trees = p.prox(x, 2.0), p.nearest_latent(g, x, 2.0)
        return p.value(x), *trees, p.subgradient(x), p.stationarity(x, g)

    value, *trees = methods(penalty, half(params), half(grads))
    dense_value, *dense_trees = methods(dense, params, grads)
    np.testing.assert_allclose(value, dense_value, rtol=1e-6)
    for tree, dense_tree in zip(trees, dense_trees, strict=True):
        close(tree, half(dense_tree), 1e-6)


def goal() -> Any:
    """A target in which half of the units of each layer are small."""
    shrunk = {
        name: jax.tree.map(
            lambda x: x.at[..., x.shape[-1] // 2 :].multiply(0.02), PARAMS[name]
        )
        for name in ("first", "second")
    }
    out = PARAMS["out"] | {"kernel": PARAMS["out"]["kernel"].at[2:].multiply(0.02)}
    return shrunk | {"out": out}


def trained(tx: Any, steps: int) -> tuple[Any, Any]:
    def step(carry: Any, _: Any) -> Any:
        w, state = carry
        updates, state = tx.update(jax.tree.map(jnp.subtract, w, goal()), state, w)
        return (optax.apply_updates(w, updates), state), None

    start = PARAMS, tx.init(PARAMS)
    return jax.jit(lambda c: jax.lax.scan(step, c, length=steps)[0])(start)


@pytest.mark.slow
def test_target_sparsity_counts_and_zeroes_whole_units() -> None:
    tx = jaxreg.target_sparsity(optax.sgd(0.05), PENALTY, 0.5, end_step=150)
    w, state = trained(tx, 250)
    assert float(state.reached) == 0.5
    dead = jnp.all(matrix(w) == 0, axis=1)
    np.testing.assert_array_equal(dead, [False, False, True, True])
    assert int(jaxreg.measure(PENALTY, w)["dead_groups"]) == 6
    held = optax.chain(optax.sgd(0.1), jaxreg.hold_support(PENALTY))
    again, _ = held.update(w, held.init(w), w)
    np.testing.assert_array_equal(jnp.all(matrix(again) == 0, axis=1), dead)


@pytest.mark.slow
def test_regularize_ends_at_the_minimum_that_minimise_finds() -> None:
    def loss(w: Any) -> jax.Array:
        pairs = zip(jax.tree.leaves(w), jax.tree.leaves(goal()), strict=True)
        return sum(jnp.sum((x - y) ** 2) for x, y in pairs) / 2

    w, _ = trained(jaxreg.regularize(optax.sgd(0.1), PENALTY), 400)
    fit = jaxreg.minimise(loss, PENALTY, PARAMS)
    close(w, fit.params, 1e-4)
    assert float(fit.stationarity) <= 1e-4
    close(fit.params, PENALTY.prox(goal(), 1.0), 1e-5)


@pytest.mark.slow
def test_reweight_stores_one_weight_per_unit() -> None:
    tx = jaxreg.reweight(lambda p: jaxreg.prox_sgd(0.1, p), PENALTY, eps=0.1, every=20)
    w, state = trained(tx, 400)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.penalty_weights)]
    assert shapes == [(8,), (4,)]
    (size,) = PENALTY.penalties[1].layout.unit_sizes(
        [w["out"]["kernel"], *jax.tree.leaves(w["second"])]
    )
    weights = state.penalty_weights["out"]["kernel"]
    np.testing.assert_allclose(weights, 0.1 / (size + 0.1), rtol=1e-4)
    assert bool(jnp.all(size[2:] == 0)) and bool(jnp.all(size[:2] > 0.5))


def test_max_strength_is_the_largest_root_mean_square_of_a_unit() -> None:
    factor = jaxreg.max_strength(coupled(jaxreg.L1(1.0), UNITS, only="^out"), PARAMS)
    rms = jnp.sqrt(jnp.mean(matrix(PARAMS) ** 2, axis=1))
    np.testing.assert_allclose(factor.overall, rms.max(), rtol=1e-5)


def test_coupled_units_are_an_item_of_by_path() -> None:
    both = jaxreg.by_path([coupled(L1, UNITS, only="first"), ("^out", L1)])
    assert jaxreg.describe(both, PARAMS).rows[0]["leaf"] == "first/bias, first/kernel"
    dead = both.prox(PARAMS, 1e3)
    assert not dead["first"]["bias"].any() and not dead["out"]["bias"].any()
    assert dead["second"]["bias"].all()


def test_a_table_has_a_row_for_the_leaves_of_a_dimension() -> None:
    rows = jaxreg.describe(PENALTY, PARAMS).rows
    assert [row["leaf"] for row in rows] == [
        "first/bias, first/kernel",
        "out/bias",
        "out/kernel, second/bias, second/kernel",
    ]
    assert [row["groups"] for row in rows] == [8, None, 4]
    dead = jaxreg.summary(PENALTY, PENALTY.prox(PARAMS, 1e3)).rows
    assert dead[1]["dead_groups"] == "8 of 8" and dead[5]["zeros"] == 32


def test_strengths_under_vmap_give_what_a_loop_gives() -> None:
    def prox(strength: Any) -> Any:
        return coupled(jaxreg.L1(strength), UNITS).prox(PARAMS, 1.0)

    grid = jnp.array([0.0, 0.5, 1.5])
    together = jax.jit(jax.vmap(prox))(grid)
    for index, strength in enumerate(grid):
        close(jax.tree.map(lambda x, i=index: x[i], together), prox(strength), 1e-6)


def test_the_gradient_is_finite_at_zero_units() -> None:
    def both(w: Any) -> jax.Array:
        proxes = jax.tree.leaves(PENALTY.prox(w, 1.0))
        return PENALTY.value(w) + sum(map(jnp.sum, proxes))

    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for slope in jax.tree.leaves(jax.jit(jax.grad(both))(zeros)):
        assert np.isfinite(slope).all()


def test_variables_of_flax_name_where_the_parameters_are() -> None:
    variables = {"params": PARAMS, "batch_stats": {"mean": jnp.zeros(3)}}
    units = couplings(lambda v, x: apply(v["params"], x), variables, INPUTS)
    assert coupled(L1, units, under="params") == PENALTY


@pytest.mark.parametrize(
    "step",
    [
        jax.tree.map(jnp.ones_like, PARAMS),
        jax.tree.map(lambda x: float(x.ndim), PARAMS),
    ],
    ids=["per entry", "per leaf"],
)
def test_steps_that_vary_within_a_unit_raise(step) -> None:
    with pytest.raises(ValueError, match=r"Use jaxreg\.regularize, whose step is one"):
        PENALTY.prox(PARAMS, step)


def test_steps_that_differ_under_jit_are_not_a_number() -> None:
    steps = jax.tree.map(lambda x: jnp.asarray(float(x.ndim)), PARAMS)
    found = jax.jit(PENALTY.prox)(PARAMS, steps)
    assert bool(jnp.all(jnp.isnan(found["first"]["kernel"])))
    same = jax.tree.map(lambda x: jnp.asarray(1.0), PARAMS)
    found = jax.jit(PENALTY.prox)(PARAMS, same)
    np.testing.assert_array_equal(
        found["first"]["kernel"], PENALTY.prox(PARAMS, 1.0)["first"]["kernel"]
    )


def test_an_adaptive_prox_of_coupled_units_names_regularize() -> None:
    tx = jaxreg.prox_adam(0.1, PENALTY)
    with pytest.raises(ValueError, match=r"Use jaxreg\.regularize"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_leaves_of_another_shape_raise_with_the_leaf() -> None:
    other = PARAMS | {"first": jax.tree.map(lambda x: x[..., :7], PARAMS["first"])}
    tx = jaxreg.regularize(optax.sgd(0.1), PENALTY)
    with pytest.raises(ValueError, match=r"'first/bias' of shape \(7,\).*the units"):
        tx.update(other, tx.init(other), other)
    with pytest.raises(ValueError, match=r"leaf 'first/bias' has shape \(4,\).*anew"):
        PENALTY.penalties[0].value([jnp.ones(4), jnp.ones((5, 8))])


def test_a_mask_on_some_leaves_of_a_unit_raises() -> None:
    mask = jax.tree.map(lambda x: x.ndim > 1, PARAMS)
    tx = optax.masked(jaxreg.regularize(optax.sgd(0.1), PENALTY), mask)
    with pytest.raises(ValueError, match="first/bias, first/kernel, and 1 are here"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_what_has_no_units_to_penalise_raises_with_the_names() -> None:
    with pytest.raises(ValueError, match="only='conv' finds none of the leaves first"):
        coupled(L1, UNITS, only="conv")
    with pytest.raises(ValueError, match=r"under is 'model'.*allowed: 'first', 'out'"):
        coupled(L1, UNITS, under="model")
    frozen = Dimension(3, (member("a", 0, range(3), 2),), frozen="output")
    with pytest.raises(ValueError, match="Frozen are: 3 units of 'a': output"):
        coupled(L1, model(frozen))


@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="words are XLA's for CPUs")
def test_a_step_moves_no_more_words_than_that_of_neurons() -> None:
    shapes = {"first": (1000, 2000), "second": (2000, 2000), "out": (2000, 500)}
    params = {
        name: {
            "bias": jax.ShapeDtypeStruct(shape[1:], jnp.float32),
            "kernel": jax.ShapeDtypeStruct(shape, jnp.float32),
        }
        for name, shape in shapes.items()
    }
    inputs = jax.ShapeDtypeStruct((2, 1000), jnp.float32)
    penalty = coupled(L1, couplings(apply, params, inputs))
    adam = optax.adam(1e-3)
    ways = {
        "adamw": optax.adamw(1e-3),
        "neurons": jaxreg.regularize(adam, jaxreg.neurons(L1, layers="^[fso]")),
        "coupled": jaxreg.regularize(adam, penalty),
    }
    entries = sum(leaf.size for leaf in jax.tree.leaves(params))
    words = {}
    for name, tx in ways.items():

        def step(w: Any, state: Any, grads: Any, tx: Any = tx) -> Any:
            updates, state = tx.update(grads, state, w)
            return optax.apply_updates(w, updates), state

        compiled = jax.jit(step, donate_argnums=(0, 1))
        state = jax.eval_shape(tx.init, params)
        costs = compiled.lower(params, state, params).compile().cost_analysis()
        words[name] = costs["bytes accessed"] / 4 / entries
    assert words["coupled"] <= 1.01 * words["neurons"]
    assert words["coupled"] <= 2.0 * words["adamw"]


def test_weights_of_coupled_units_are_one_per_unit() -> None:
    rule = coupled(L1, UNITS, only="first").penalties[0]
    leaves = jax.tree.leaves(PARAMS["first"])
    weights = jnp.arange(8.0)
    found = jaxreg.weighted(rule, weights).prox(leaves, 10.0)[1]
    joint = jnp.concatenate([leaves[0][:, None], leaves[1].T], 1)
    rows = jaxreg.weighted(jaxreg.GroupLasso(0.05, 0), weights[:, None])
    np.testing.assert_allclose(found.T, rows.prox(joint, 10.0)[:, 1:], atol=1e-6)
    with pytest.raises(ValueError, match=r"one array of shape \(8,\)"):
        jaxreg.weighted(rule, jnp.ones(5))
