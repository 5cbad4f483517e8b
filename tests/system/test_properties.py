"""Facts for any tree of parameters: random nesting, shapes and dtypes."""

import re
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support import ways
from tests.support.trees import assert_equal

# A few shapes and dtypes: whatever is new is compiled.
SHAPES = [(), (3,), (2, 3), (0, 3)]
DTYPES = ["float32", "bfloat16", "float16"]
NAMES = ["kernel", "bias", "value", "a b"]

some = hypothesis.settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
many = hypothesis.settings(some, max_examples=60)


def nested(leaves: Any) -> Any:
    """Trees of dicts, lists, tuples and None with such leaves."""
    return st.recursive(
        leaves | st.none(),
        lambda below: (
            st.dictionaries(st.sampled_from(NAMES), below, max_size=3)
            | st.lists(below, max_size=2)
            | st.lists(below, max_size=2).map(tuple)
        ),
        max_leaves=5,
    )


kinds = st.tuples(st.sampled_from(SHAPES), st.sampled_from(DTYPES))
shapes_only = nested(kinds.map(lambda kind: jax.ShapeDtypeStruct(*kind)))


def filled(kind: tuple[Any, str], seed: int) -> jax.Array:
    """Numbers of order 1, a third of them exactly zero."""
    rng = np.random.default_rng(seed)
    shape, dtype = kind
    numbers = rng.normal(size=shape) * (rng.random(shape) > 1 / 3)
    return jnp.asarray(numbers, dtype)


arrays = nested(st.builds(filled, kinds, st.integers(0, 3)))
elementwise = st.sampled_from([way for way in ways.EVERY if way != "half_space"])


def paths(tree: Any) -> list[str]:
    keyed = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in keyed]


def matched(pattern: str, tree: Any) -> list[bool]:
    return [re.search(pattern, path) is not None for path in paths(tree)]


@st.composite
def ruled(draw: Any, trees: Any) -> tuple[Any, str]:
    """A tree and a pattern that matches at least one of its leaves."""
    tree = draw(trees.filter(jax.tree.leaves))
    path = draw(st.sampled_from(paths(tree)))
    tail = path.split("/")[-1]
    return tree, draw(st.sampled_from(["", f"^{re.escape(path)}$", re.escape(tail)]))


def rules(pattern: str, way: str = "") -> Any:
    box, l1 = jaxreg.Box(-1.0, 1.0), jaxreg.L1(0.01)
    return jaxreg.by_path([(pattern, box if way == "project" else l1)])


def types(tree: Any) -> Any:
    kinds = [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]
    return jax.tree.structure(tree), kinds


def stepped(tx: Any, params: Any, state: Any) -> Any:
    return tx.update(params, state, params)


@many
@hypothesis.given(ruled(shapes_only), elementwise)
def test_an_update_keeps_the_types_of_any_state_and_params(ruled_tree, way) -> None:
    tree, pattern = ruled_tree
    tx = ways.build(way, rules(pattern, way))
    state = jax.eval_shape(tx.init, tree)
    updates, new = jax.eval_shape(lambda p, s: tx.update(p, s, p), tree, state)
    assert types(new) == types(state)
    assert jax.tree.structure(updates) == jax.tree.structure(tree)
    for update, leaf in zip(
        jax.tree.leaves(updates), jax.tree.leaves(tree), strict=True
    ):
        assert (update.shape, update.dtype) == (leaf.shape, leaf.dtype)


@many
@hypothesis.given(shapes_only, elementwise)
def test_rules_that_match_no_leaf_raise_with_every_path(tree, way) -> None:
    tree = {"tree": tree}
    tx = ways.build(way, rules("nowhere", way))
    state = jax.eval_shape(tx.init, tree)
    with pytest.raises(ValueError, match=r"'nowhere'.*matches no leaf") as caught:
        jax.eval_shape(lambda p, s: tx.update(p, s, p), tree, state)
    assert all(repr(path) in str(caught.value) for path in paths(tree))


@many
@hypothesis.given(shapes_only, st.sampled_from(ways.WITH_REPORTS), st.data())
def test_a_leaf_that_cannot_be_penalised_raises_by_its_path(tree, way, data) -> None:
    leaves, treedef = jax.tree.flatten(tree)
    hypothesis.assume(leaves)
    place = data.draw(st.integers(0, len(leaves) - 1))
    leaves[place] = jax.ShapeDtypeStruct((2, 3), "int32")
    wrong = jax.tree.unflatten(treedef, leaves)
    # Leaves on which a group penalty raises are left free.
    rule = f"^{re.escape(paths(wrong)[place])}$"
    one = jaxreg.by_path([(rule, ways.penalty(way))])
    name = re.escape(repr(paths(wrong)[place]))
    with pytest.raises(TypeError, match=f"on leaf {name} of dtype int32"):
        jax.eval_shape(lambda p: ways.use(way, one, p), wrong)


@some
@hypothesis.given(ruled(arrays))
@pytest.mark.slow
def test_free_leaves_get_what_the_optimizer_alone_gives(ruled_tree) -> None:
    tree, pattern = ruled_tree
    alone = optax.sgd(0.125, momentum=0.5)
    expected, _ = stepped(alone, tree, alone.init(tree))
    for tx in (
        jaxreg.regularize(alone, rules(pattern)),
        jaxreg.prox_sgd(0.125, rules(pattern), momentum=0.5),
        optax.chain(alone, jaxreg.shrink(rules(pattern), 0.125)),
    ):
        updates, _ = stepped(tx, tree, tx.init(tree))
        for is_ours, update, wanted in zip(
            matched(pattern, tree),
            jax.tree.leaves(updates),
            jax.tree.leaves(expected),
            strict=True,
        ):
            if not is_ours:
                np.testing.assert_array_equal(update, wanted)


@some
@hypothesis.given(ruled(arrays))
def test_zeros_within_the_dead_zone_stay_exactly_zero(ruled_tree) -> None:
    tree, pattern = ruled_tree
    tx = jaxreg.regularize(optax.sgd(0.125), rules(pattern))
    updates, _ = stepped(tx, tree, tx.init(tree))
    after = optax.apply_updates(tree, updates)
    for is_ours, leaf, old in zip(
        matched(pattern, tree),
        jax.tree.leaves(after),
        jax.tree.leaves(tree),
        strict=True,
    ):
        # The gradient, equal to the leaf, is 0 where the leaf is.
        if is_ours:
            assert np.all(np.asarray(leaf)[np.asarray(old) == 0] == 0)


@some
@hypothesis.given(arrays, st.sampled_from(["regularize", "prox_sgd", "ftrl", "shrink"]))
def test_a_flattened_and_rebuilt_state_gives_the_same_update(tree, way) -> None:
    tree = {"tree": tree}
    tx = ways.build(way, jaxreg.L1(0.01))
    _, state = stepped(tx, tree, tx.init(tree))
    leaves, treedef = jax.tree.flatten(state)
    rebuilt = jax.tree.unflatten(treedef, [jnp.asarray(np.array(x)) for x in leaves])
    assert_equal(stepped(tx, tree, rebuilt), stepped(tx, tree, state))


@some
@hypothesis.given(ruled(arrays))
def test_reports_have_a_line_for_every_leaf_and_finite_numbers(ruled_tree) -> None:
    tree, pattern = ruled_tree
    one, found = rules(pattern), matched(pattern, tree)
    for rows in (
        jaxreg.describe(one, tree).rows,
        jaxreg.summary(one, tree).rows[:-1],
    ):
        assert [row["leaf"] for row in rows] == paths(tree)
        assert [row["penalty"] != "free" for row in rows] == found
    numbers = jaxreg.measure(one, tree, grads=tree, previous=tree)
    assert all(np.isfinite(number) for number in numbers.values())
    assert numbers["flips"] == 0
