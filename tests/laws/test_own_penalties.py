"""Penalties of one's own: an elementwise one, and one whose units span leaves."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from jaxreg._core.layout import Layout

# --- an elementwise penalty in 15 lines ---


@jaxreg.pytree_dataclass
class Cost(jaxreg.Elementwise):
    """`strength * sum (|w| + w^4 / 4)`; its prox solves a cubic by Newton's method."""

    strength: Any

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return self.strength * (jnp.abs(leaf) + leaf**4 / 4)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        size = x = jnp.maximum(jnp.abs(leaf) - self.strength * step, 0.0)
        for _ in range(30):
            slope = 1 + 3 * self.strength * step * x**2
            x = x - (x + self.strength * step * x**3 - size) / slope
        return jnp.sign(leaf) * x

    def step_for(self, width: Any) -> jax.Array:
        return jnp.asarray(width / self.strength)


COST = Cost(0.1)
GOAL = jnp.array([3.0, 0.05, -2.0, 0.5, -0.02, 1.0])


def trained(tx: Any, goal: Any, steps: int = 600) -> Any:
    def step(carry: Any, _: Any) -> Any:
        w, state = carry
        updates, state = tx.update(jax.tree.map(jnp.subtract, w, goal), state, w)
        return (optax.apply_updates(w, updates), state), None

    w = jax.tree.map(jnp.ones_like, goal)
    return jax.jit(lambda c: jax.lax.scan(step, c, length=steps)[0])((w, tx.init(w)))


def test_an_own_penalty_reaches_its_stationary_point() -> None:
    w, _ = trained(jaxreg.regularize(optax.adam(1e-2), COST), GOAL, 4000)
    assert float(jnp.max(COST.stationarity(w, w - GOAL))) < 1e-4
    np.testing.assert_array_equal(w == 0, jnp.abs(GOAL) <= 0.1)


def test_an_own_penalty_states_what_follows_from_its_value() -> None:
    assert COST.facts.zeros == "entries" and COST.facts.is_separable
    np.testing.assert_allclose(COST.slope_at_zero, 0.1, rtol=1e-6)
    np.testing.assert_allclose(
        COST.subgradient(jnp.array([2.0])), [0.1 * (1 + 8)], rtol=1e-6
    )


def test_an_own_penalty_takes_part_in_target_sparsity() -> None:
    tx = jaxreg.target_sparsity(optax.sgd(0.02), COST, 0.5, end_step=300)
    w, state = trained(tx, GOAL)
    assert int(jnp.sum(w == 0)) == 3 and float(state.reached) == 0.5


def test_an_own_penalty_takes_part_in_groups_and_half_space() -> None:
    rows = jaxreg.grouped(COST, group_axis=0)
    goal = jnp.array([[2.0, -1.0], [0.05, 0.04], [0.01, -0.08]])
    w, _ = trained(jaxreg.regularize(optax.adam(1e-2), rows), goal, 3000)
    np.testing.assert_array_equal(jnp.all(w == 0, axis=1), [False, True, True])
    tx = optax.chain(optax.sgd(1.0), jaxreg.half_space(rows))
    assert jnp.all(trained(tx, -jnp.ones((2, 2)), 1)[0] == 0)


def test_an_own_penalty_takes_part_in_hold_support_and_reweight() -> None:
    w = jnp.array([1.0, 0.0])
    tx = optax.chain(optax.sgd(0.25), jaxreg.hold_support(COST))
    held, _ = tx.update(jnp.ones(2), tx.init(w), w)
    np.testing.assert_array_equal(held, [-0.25, 0.0])
    tx = jaxreg.reweight(lambda p: jaxreg.prox_sgd(0.1, p), COST, eps=0.1, every=2)
    after, state = trained(tx, GOAL, 10)
    assert state.penalty_weights.shape == after.shape


def test_an_own_penalty_takes_part_in_reports() -> None:
    w = jnp.array([1.0, 0.0])
    assert jaxreg.summary(COST, w).rows[-1]["zeros"] == 1
    assert jaxreg.describe(COST, w).rows[0]["prox_step"] == pytest.approx(0.5)
    np.testing.assert_allclose(
        jaxreg.max_strength(COST, jnp.array([0.3, -0.2])).overall, 3.0, rtol=1e-5
    )


@jaxreg.pytree_dataclass
class Smooth(jaxreg.Elementwise):
    """`strength * sum w^2`, with the three methods alone: it has no kink at 0."""

    strength: Any

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return self.strength * leaf**2

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return leaf / (1 + 2 * self.strength * step)

    def step_for(self, width: Any) -> jax.Array:
        return jnp.asarray(1 / (2 * self.strength))


def test_a_smooth_own_penalty_makes_no_zeros_inside_jit_either() -> None:
    assert Smooth(0.1).facts.zeros is None
    zeros = []
    jax.jit(lambda x: (x, zeros.append(Smooth(0.1).facts.zeros))[0])(1.0)
    assert zeros == [None]


def test_a_leaf_of_a_smooth_own_penalty_is_not_pruned() -> None:
    rules = jaxreg.by_path([("a", jaxreg.L1(0.01)), ("b", Smooth(0.01))])
    goal = {"a": jnp.linspace(0.1, 1.0, 10), "b": jnp.linspace(0.1, 1.0, 10)}
    tx = jaxreg.target_sparsity(optax.sgd(0.05), rules, 0.5, end_step=100)
    w, _ = trained(tx, goal, 200)
    assert int(jnp.sum(w["a"] == 0)) == 5 and not (w["b"] == 0).any()


def test_an_own_penalty_that_is_no_pytree_raises() -> None:
    @dataclasses.dataclass(frozen=True)
    class Plain(jaxreg.Elementwise):
        strength: Any
        leaf_values, leaf_prox, step_for = (
            Cost.leaf_values,
            Cost.leaf_prox,
            Cost.step_for,
        )

    with pytest.raises(TypeError, match=r"jaxreg\.pytree_dataclass"):
        jaxreg.regularize(optax.sgd(0.1), Plain(0.1))


# --- units that span leaves ---


@dataclasses.dataclass(frozen=True)
class Pairs(Layout):
    """Row `j` of the first leaf and row `j` of the second are one unit."""

    def unit_count(self, shape: tuple[int, ...]) -> int:
        return shape[0]

    def unit_sizes(self, leaves: Any) -> list[jax.Array]:
        square = sum(jnp.sum(leaf**2, axis=1) for leaf in leaves)
        return [jnp.sqrt(square / sum(leaf.shape[1] for leaf in leaves))]

    def spread(self, units: Any, shapes: Any) -> list[jax.Array]:
        return [jnp.broadcast_to(units[0][:, None], shape) for shape in shapes]

    def dead_in_leaves(self, leaves: Any) -> list[jax.Array]:
        dead = jnp.sum(self.unit_sizes(leaves)[0] == 0)
        return [dead] * len(leaves)


@jaxreg.pytree_dataclass
class PairNorm(jaxreg.Penalty):
    """`strength * sum_j sqrt(n) ||(first_j, second_j)||`: a norm over two leaves."""

    strength: Any

    @property
    def facts(self) -> jaxreg.Facts:
        return jaxreg.Facts(is_joint=True, zeros="units", stationarity_kind="residual")

    @property
    def layout(self) -> Layout:
        return Pairs()

    def value(self, params: Any) -> jax.Array:
        leaves = jax.tree.leaves(params)
        count = sum(leaf.shape[1] for leaf in leaves)
        return self.strength * count * jnp.sum(Pairs().unit_sizes(leaves)[0])

    def subgradient(self, params: Any) -> Any:
        leaves, treedef = jax.tree.flatten(params)
        (sizes,) = Pairs().unit_sizes(leaves)
        scale = self.strength / jnp.where(sizes > 0, sizes, 1.0)
        return treedef.unflatten([leaf * scale[:, None] for leaf in leaves])

    def prox(self, params: Any, step: Any) -> Any:
        leaves, treedef = jax.tree.flatten(params)
        (sizes,) = Pairs().unit_sizes(leaves)
        step = jax.tree.leaves(step)[0]
        left = jnp.maximum(sizes - self.strength * step, 0.0)
        scale = left / jnp.where(sizes > 0, sizes, 1.0)
        return treedef.unflatten([leaf * scale[:, None] for leaf in leaves])

    def step_for(self, width: Any) -> jax.Array:
        return jnp.asarray(width / self.strength)

    def stationarity(self, params: Any, grads: Any) -> Any:
        step = self.step_for(0.05)
        ahead = jax.tree.map(lambda x, g: x - step * g, params, grads)
        prox = self.prox(ahead, step)
        return jax.tree.map(lambda x, y: jnp.abs(x - y) / step, params, prox)


TWO = {
    "first": jnp.array([[2.0, 1.0], [0.3, 0.2], [0.1, -0.1], [1.0, 0.0]]),
    "second": jnp.array([[1.0], [0.1], [0.2], [-1.0]]),
}
PAIRS = PairNorm(0.05)


def test_units_that_span_leaves_die_together_at_the_wanted_share() -> None:
    tx = jaxreg.target_sparsity(optax.sgd(0.02), PAIRS, 0.5, end_step=300)
    w, state = trained(tx, TWO)
    dead = [np.all(np.asarray(leaf) == 0, axis=1) for leaf in jax.tree.leaves(w)]
    np.testing.assert_array_equal(*dead)
    assert dead[0].tolist() == [False, True, True, False]
    assert float(state.reached) == 0.5


def test_units_that_span_leaves_are_held_as_one() -> None:
    w = {"first": jnp.array([[1.0, 1.0], [0.0, 0.0]]), "second": jnp.zeros((2, 1))}
    tx = optax.chain(optax.sgd(0.25), jaxreg.hold_support(PAIRS))
    held, _ = tx.update(jax.tree.map(jnp.ones_like, w), tx.init(w), w)
    # The second leaf's first row is zero, but its unit lives.
    np.testing.assert_array_equal(held["second"], [[-0.25], [0.0]])


def test_units_that_span_leaves_count_once_in_reports() -> None:
    w = {"first": jnp.array([[1.0, 1.0], [0.0, 0.0]]), "second": jnp.zeros((2, 1))}
    assert int(jaxreg.measure(PAIRS, w)["dead_groups"]) == 1
    rows = jaxreg.summary(PAIRS, w).rows
    assert [row["dead_groups"] for row in rows[:2]] == ["1 of 2", "1 of 2"]
    assert [row["groups"] for row in jaxreg.describe(PAIRS, w).rows] == [2, 2]
