"""The sparse group lasso and the LassoNet penalty: facts beyond the laws."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize_scalar

import jaxreg
from tests.support.training import train

pytestmark = pytest.mark.slow


def test_the_sparse_group_lasso_has_l1_and_groups_as_limits(x64):
    v = np.random.default_rng(0).normal(size=(5, 4))
    steps = 10.0 ** np.random.default_rng(1).uniform(-2, 2, (5, 4))
    for one, other in (
        (jaxreg.SparseGroupLasso(0.3, 0.0, 0), jaxreg.L1(0.3)),
        (jaxreg.SparseGroupLasso(0.0, 0.3, 0), jaxreg.GroupLasso(0.3, 0)),
    ):
        for step in (0.7, steps):
            expected = other.prox(v, step)
            np.testing.assert_allclose(one.prox(v, step), expected, rtol=1e-12)
        np.testing.assert_allclose(one.value(v), other.value(v), rtol=1e-14)


def test_l1_plus_group_lasso_is_the_sparse_group_lasso() -> None:
    both = jaxreg.L1(0.25) + jaxreg.GroupLasso(0.3, group_axis=1)
    assert both == jaxreg.GroupLasso(0.3, group_axis=1) + jaxreg.L1(0.25)
    assert both == jaxreg.SparseGroupLasso(0.25, 0.3, group_axis=1)
    more = jaxreg.SparseGroupLasso(0.75, 0.3, group_axis=1)
    assert (both + jaxreg.L1(0.5)) == more
    with pytest.raises(TypeError, match="composing the two proxes"):
        _ = both + jaxreg.GroupLasso(0.3, group_axis=0)


def test_groups_by_blocks_of_the_sparse_group_lasso_die_alone() -> None:
    heads = jaxreg.SparseGroupLasso(0.1, 1.0, jaxreg.Blocks((None, 2)))
    kernel = jnp.array([[3.0, 3.0, 0.9, 0.9], [3.0, 0.05, 0.9, 0.9]])
    x = heads.prox(kernel, 1.0)
    np.testing.assert_array_equal(x == 0, [[0, 0, 1, 1], [0, 1, 1, 1]])
    assert heads.layout.unit_count(kernel.shape) == 2
    np.testing.assert_array_equal(
        jnp.ravel(heads.layout.leaf_sizes(x) == 0), [False, True]
    )


def paper_prox(skip, first, strength, bound):
    """Algorithm 2 of the paper, for the prox with step 1: one count that fits."""
    order = -np.sort(-abs(first))
    norm = np.linalg.norm(skip)
    for count in range(len(first) + 1):
        above = norm + bound * order[:count].sum()
        size = bound / (1 + count * bound**2) * max(above - strength, 0.0)
        upper = order[count - 1] if count else np.inf
        lower = order[count] if count < len(first) else 0.0
        if lower <= size <= upper:
            clipped = np.sign(first) * np.minimum(size, abs(first))
            return size / bound * skip / norm, clipped
    raise AssertionError("no count fits")


@pytest.mark.parametrize("strength", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("bound", [0.1, 1.0, 10.0])
def test_the_hierarchical_prox_is_algorithm_2_of_the_paper(strength, bound, x64):
    generator = np.random.default_rng(0)
    skip, first = generator.normal(size=(20, 3)), generator.normal(size=(20, 6))
    penalty = jaxreg.Hierarchical(strength, bound, skip=1)
    found = penalty.prox({"hidden_0": first, "skip": skip}, 1.0)
    for row in range(20):
        one, other = paper_prox(skip[row], first[row], strength, bound)
        np.testing.assert_allclose(found["skip"][row], one, atol=1e-14)
        np.testing.assert_allclose(found["hidden_0"][row], other, atol=1e-14)


def least(skip, first, strength, bound, l1, steps):
    """The least objective over the norm of the skip row; the rest is a clip."""
    own, other = steps
    norm = np.linalg.norm(skip)
    shrunk = np.sign(first) * np.maximum(abs(first) - l1 * other, 0)

    def height(radius):
        w = np.clip(shrunk, -bound * radius, bound * radius)
        fit = np.sum((w - first) ** 2) / (2 * other) + l1 * np.sum(abs(w))
        return (radius - norm) ** 2 / (2 * own) + strength * radius + fit

    grid = np.linspace(0, norm + abs(first).max() / bound + 1, 2001)
    start = grid[np.argmin([height(radius) for radius in grid])]
    ends = (max(start - grid[1], 0.0), start + grid[1])
    found = minimize_scalar(height, bounds=ends, options={"xatol": 1e-12})
    return min(found.fun, height(0.0))


@pytest.mark.parametrize("steps", [(1.0, 1.0), (10.0, 0.1), (0.01, 5.0)])
@pytest.mark.parametrize("bound", [0.3, 10.0])
def test_the_hierarchical_prox_takes_a_step_per_leaf(steps, bound, x64) -> None:
    generator = np.random.default_rng(3)
    penalty = jaxreg.Hierarchical(0.7, bound, skip=0, l1=0.2)
    for seed in range(10):
        skip, first = generator.normal(size=(1, 3)), generator.normal(size=(1, 5))
        skip *= seed % 3
        out = penalty.prox([skip, first], [np.asarray(step) for step in steps])
        moved = [np.sum((x - v) ** 2) for x, v in zip(out, [skip, first], strict=True)]
        found = penalty.value(out) + sum(np.array(moved) / (2 * np.array(steps)))
        floor = least(skip[0], first[0], 0.7, bound, 0.2, steps)
        # A bounded search to 1e-12 of a parabola.
        assert found <= floor + 1e-11 * (1 + floor)


def test_a_feature_without_skip_weights_keeps_finite_numbers() -> None:
    """LassoNet's own prox is NaN where the skip weights are 0 and the others not."""
    penalty = jaxreg.Hierarchical(0.1, 1.0, skip=1)
    params = {"first": jnp.array([[2.0, -1.0]]), "skip": jnp.zeros((1, 2))}
    out = penalty.prox(params, 1.0)
    radius = (0.0 - 0.1 + 2.0 + 1.0) / 3
    np.testing.assert_allclose(out["first"], [[radius, -radius]], rtol=1e-6)
    np.testing.assert_allclose(out["skip"], [[radius / 2**0.5] * 2], rtol=1e-6)
    jacobian = jax.jacobian(lambda leaves: penalty.prox(leaves, 1.0))(params)
    assert all(np.isfinite(block).all() for block in jax.tree.leaves(jacobian))
    assert penalty.value(out) < np.inf
    assert penalty.value(params) == np.inf


def test_the_hierarchical_prox_leaves_a_leaf_of_step_zero_alone() -> None:
    penalty = jaxreg.Hierarchical(0.1, 1.0, skip=1)
    params = {"first": jnp.array([[2.0, -0.3]]), "skip": jnp.array([[0.5]])}
    out = penalty.prox(params, {"first": 0.0, "skip": 1.0})
    np.testing.assert_array_equal(out["first"], params["first"])
    np.testing.assert_allclose(out["skip"], [[2.0]], rtol=1e-6)
    out = penalty.prox(params, {"first": 1.0, "skip": 0.0})
    np.testing.assert_array_equal(out["skip"], params["skip"])
    np.testing.assert_allclose(out["first"], [[0.5, -0.3]], rtol=1e-6)


def test_leaves_that_are_no_pair_of_kernels_raise() -> None:
    penalty = jaxreg.Hierarchical(0.1, 1.0, skip=1)
    with pytest.raises(ValueError, match=r"acts on two leaves, .* shapes \[\(2, 2\)\]"):
        penalty.value([jnp.ones((2, 2))])
    with pytest.raises(ValueError, match="two kernels with one row per input"):
        penalty.prox([jnp.ones((2, 2)), jnp.ones((3, 2))], 1.0)
    with pytest.raises(ValueError, match=r"a step of shape .* varies within a leaf"):
        penalty.prox([jnp.ones((2, 2))] * 2, [np.ones((2, 1)), 1.0])
    with pytest.raises(ValueError, match="the leaf has fewer than two axes"):
        jaxreg.by_path([("", penalty)]).value({"a": jnp.ones(2), "b": jnp.ones(2)})
    with pytest.raises(ValueError, match="skip is 2; allowed: 0 or 1"):
        jaxreg.Hierarchical(0.1, 1.0, skip=2)


def test_a_network_loses_the_inputs_that_do_not_matter() -> None:
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(200, 6)), jnp.float32)
    y = x[:, :1] + 2 * jnp.tanh(3 * x[:, 1:2])
    shapes = {"hidden_0": (6, 16), "out": (16, 1), "skip": (6, 1)}
    params = {
        name: {"kernel": jnp.asarray(generator.normal(size=s) / s[0] ** 0.5, "f4")}
        for name, s in shapes.items()
    }
    rule = (r"^(skip|hidden_0)/kernel$", jaxreg.Hierarchical(1.0, 10.0, skip=1))
    # Without it the last layer grows, and the first shrinks below the bound for free.
    penalty = jaxreg.by_path([rule, ("out", jaxreg.L2(0.02))])
    rate = optax.cosine_decay_schedule(1e-2, 4000)
    tx = jaxreg.regularize(optax.adam(rate), penalty, width=0.1)

    def loss(params):
        hidden = jnp.tanh(x @ params["hidden_0"]["kernel"])
        linear = x @ params["skip"]["kernel"]
        return jnp.mean((hidden @ params["out"]["kernel"] + linear - y) ** 2)

    params, _ = train(tx, jax.grad(loss), params, 4000)
    dead = np.all(np.asarray(params["hidden_0"]["kernel"]) == 0, axis=1)
    skip = np.ravel(params["skip"]["kernel"])
    np.testing.assert_array_equal(skip == 0, dead)
    # What stays of four inputs without effect is their chance correlation.
    assert (abs(skip[:2]) > 0.02).all() and (abs(skip[2:]) < 1e-3).all()
    assert dead.sum() >= 3
    distance = penalty.stationarity(params, jax.grad(loss)(params))
    # Adam's last steps of a cosine that ends at 0.
    assert all(np.max(leaf) < 1e-2 for leaf in jax.tree.leaves(distance))
    assert float(loss(params)) < 0.1
    assert np.isfinite(penalty.value(params))
