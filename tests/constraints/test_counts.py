"""Top-k and N:M against sorts and loops, and what constraints refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg
from tests.laws.rows.constraints import largest

PROX = jax.jit(lambda penalty, leaf, step: penalty.prox(leaf, step))


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("count", [0, 1, 17, 499, 500, 600])
@pytest.mark.parametrize("kind", ["generic", "tied", "half zero"])
def test_top_k_keeps_what_a_stable_sort_keeps(count: int, kind: str) -> None:
    v = normal(0, 25, 20).astype("f4")
    v = {"generic": v, "tied": np.round(v), "half zero": np.maximum(v, 0)}[kind]
    found = np.asarray(PROX(jaxreg.TopK(count), v, 1.0))
    expected = largest(v.reshape(1, -1), count).reshape(v.shape)
    np.testing.assert_array_equal(found, expected)
    assert (found != 0).sum() == min(count, (v != 0).sum())


def test_top_k_in_a_metric_keeps_the_largest_squares_by_step() -> None:
    v, step = normal(0, 500), 10 ** np.random.default_rng(1).uniform(-4, 4, 500)
    found = np.asarray(PROX(jaxreg.TopK(100), v.astype("f4"), step.astype("f4")))
    kept = np.argsort(-(v**2) / step)[:100]
    np.testing.assert_array_equal(np.flatnonzero(found), np.sort(kept))


def test_top_k_keeps_what_a_step_of_zero_holds_and_counts_it() -> None:
    v, step = np.array([1.0, 5.0, 3.0, 0.0], "f4"), np.array([0.0, 1.0, 1.0, 0.0], "f4")
    assert PROX(jaxreg.TopK(2), v, step).tolist() == [1.0, 5.0, 0.0, 0.0]
    assert PROX(jaxreg.TopK(0), v, step).tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("step", [1.0, "tree"])
def test_top_k_over_the_tree_counts_all_leaves_together(step) -> None:
    params = {"a": normal(0, 4, 5).astype("f4"), "b": 3 * normal(1, 7).astype("f4")}
    steps = jax.tree.map(jnp.ones_like, params) if step == "tree" else step
    found = PROX(jaxreg.TopK(6, scope="tree"), params, steps)
    flat = np.concatenate([params["a"].ravel(), params["b"]])
    expected = largest(flat[None], 6)[0]
    both = np.concatenate([np.ravel(found["a"]), found["b"]])
    np.testing.assert_array_equal(both, expected)


def test_top_k_over_the_tree_keeps_the_first_of_equal_entries() -> None:
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones(3)}
    found = PROX(jaxreg.TopK(5, scope="tree"), params, 1.0)
    assert (float(found["a"].sum()), found["b"].tolist()) == (4.0, [1.0, 0.0, 0.0])


def test_a_traced_share_compiles_once_and_keeps_that_share() -> None:
    v, traces = normal(0, 40).astype("f4"), []

    @jax.jit
    def kept(penalty: jaxreg.Penalty) -> jax.Array:
        traces.append(penalty)
        return jnp.sum(penalty.prox(v, 1.0) != 0)

    counts = [int(kept(jaxreg.TopK(fraction=share))) for share in (0.0, 0.3, 1.0)]
    assert counts == [0, 12, 40]
    assert len(traces) == 1


@pytest.mark.parametrize("n, m", [(0, 2), (1, 2), (2, 4), (3, 4), (4, 4), (1, 8)])
@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_nm_agrees_with_a_loop_over_blocks(n: int, m: int, axis: int) -> None:
    v = np.round(4 * normal(0, 8, 16, 8)).astype("f4")
    expected = np.moveaxis(v.copy(), axis, -1)
    for index in np.ndindex(*expected.shape[:-1]):
        for start in range(0, expected.shape[-1], m):
            block = expected[index][start : start + m]
            block[np.argsort(-abs(block), kind="stable")[n:]] = 0
    found = PROX(jaxreg.NM(n, m, axis), v, 1.0)
    np.testing.assert_array_equal(found, np.moveaxis(expected, -1, axis))


def test_jaxpruner_blocks_outputs_where_nm_blocks_inputs() -> None:
    kernel = jnp.array([[4.0, 3.0], [2.0, 1.0]])
    assert jaxreg.NM(1, 2).prox(kernel, 1.0).tolist() == [[4.0, 3.0], [0.0, 0.0]]
    outputs = jaxreg.NM(1, 2, axis=-1).prox(kernel, 1.0)
    assert outputs.tolist() == [[4.0, 0.0], [2.0, 0.0]]


def test_nm_in_a_metric_keeps_the_largest_squares_by_step() -> None:
    v = jnp.array([[2.0], [1.0], [1.0], [3.0]])
    step = jnp.array([[9.0], [1.0], [0.0], [1.0]])
    found = jaxreg.NM(1, 2).prox(v, step)
    # A step of 0 holds its entry, which takes the place of the other.
    assert found.ravel().tolist() == [0.0, 1.0, 1.0, 0.0]
