"""Overlapping groups in their latent form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support.training import train

pytestmark = pytest.mark.slow

OVERLAP = jaxreg.Overlap(((0, 1, 2), (2, 3), (3, 4, 5, 6), (6, 7)), size=8)


def test_overlapping_groups_are_split_evenly_and_merged_again() -> None:
    w = jnp.arange(1.0, 9.0)
    latent = OVERLAP.duplicate(w)
    expected = [[1, 2, 1.5, 0], [1.5, 2, 0, 0], [2, 5, 6, 3.5], [3.5, 8, 0, 0]]
    np.testing.assert_array_equal(latent, expected)
    np.testing.assert_array_equal(OVERLAP.merge(latent), w)
    kernel = jnp.ones((8, 3), jnp.bfloat16) * w[:, None].astype(jnp.bfloat16)
    again = OVERLAP.merge(OVERLAP.duplicate(kernel))
    assert again.dtype == jnp.bfloat16
    np.testing.assert_array_equal(again, kernel)


@pytest.mark.parametrize("extra", [(), (3,)])
def test_each_group_is_weighted_by_the_root_of_its_size(extra) -> None:
    generator = np.random.default_rng(0)
    latent = OVERLAP.duplicate(generator.normal(size=(8, *extra)))
    weights = OVERLAP.weights[..., None] if extra else OVERLAP.weights
    penalty = jaxreg.weighted(jaxreg.GroupLasso(0.5, group_axis=0), weights)
    sizes = [len(group) * (extra[0] if extra else 1) for group in OVERLAP.groups]
    norms = np.linalg.norm(np.asarray(latent).reshape(4, -1), axis=1)
    np.testing.assert_allclose(
        penalty.value(latent), 0.5 * np.sum(np.sqrt(sizes) * norms), rtol=1e-6
    )


def block_descent(design, target, strength: float) -> np.ndarray:
    """The latent problem by exact minimisation over one group at a time, in NumPy."""
    latent = [np.zeros(len(group)) for group in OVERLAP.groups]
    count = len(target)
    for _ in range(3000):
        for place, group in enumerate(OVERLAP.groups):
            fit = sum(
                design[:, list(g)] @ v
                for other, (g, v) in enumerate(zip(OVERLAP.groups, latent, strict=True))
                if other != place
            )
            own = design[:, list(group)]
            pull, weight = own.T @ (target - fit) / count, strength * len(group) ** 0.5
            if np.linalg.norm(pull) <= weight:
                latent[place] = np.zeros(len(group))
                continue
            values, basis = np.linalg.eigh(own.T @ own / count)
            rotated = basis.T @ pull
            # With n the norm of the answer v = n (n Q + weight)^-1 pull, |v| / n = 1.
            low, high = 0.0, 1e3
            for _ in range(100):
                middle = (low + high) / 2
                is_short = np.linalg.norm(rotated / (middle * values + weight)) < 1
                low, high = (low, middle) if is_short else (middle, high)
            latent[place] = basis @ (low * rotated / (low * values + weight))
    w = np.zeros(8)
    for group, v in zip(OVERLAP.groups, latent, strict=True):
        w[list(group)] += v
    return w


def test_the_support_of_overlapping_groups_is_a_union_of_groups(x64) -> None:
    generator = np.random.default_rng(1)
    design = generator.normal(size=(50, 8))
    true = np.array([0.0, 0.0, 1.0, 1.5, -1.0, 1.0, 0.8, 0.0])
    target = design @ true + 0.1 * generator.normal(size=50)
    penalty = jaxreg.weighted(jaxreg.GroupLasso(0.3, group_axis=0), OVERLAP.weights)
    tx = jaxreg.regularize(
        optax.adam(optax.cosine_decay_schedule(0.05, 6000)), penalty, width=0.5
    )

    def loss(latent):
        residual = design @ OVERLAP.merge(latent) - target
        return jnp.sum(residual**2) / (2 * len(target))

    start = OVERLAP.duplicate(jnp.ones(8))
    latent, _ = train(tx, jax.grad(loss), start, 6000)
    w = np.asarray(OVERLAP.merge(latent))
    # Both solvers stop well below it.
    np.testing.assert_allclose(w, block_descent(design, target, 0.3), atol=1e-6)
    is_alive = np.any(np.asarray(latent) != 0, axis=1)
    assert 0 < is_alive.sum() < 4
    pairs = zip(OVERLAP.groups, is_alive, strict=True)
    union = {i for group, alive in pairs if alive for i in group}
    assert set(np.flatnonzero(w)) == union
    padding = np.arange(4) >= np.array([[3], [2], [4], [2]])
    np.testing.assert_array_equal(np.asarray(latent)[padding], 0.0)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (((0, 1), ()), r"group 1 is \(\)"),
        (((0, 1), (2, 2)), r"group 1 is \(2, 2\)"),
        (((0, 1), (2, 3)), r"indices \[3\] are outside 0 to 2"),
        (((0, 1),), r"entries \[2\] are in no group"),
    ],
)
def test_groups_that_lose_or_repeat_an_entry_raise(sets, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jaxreg.Overlap(sets, size=3)


@pytest.mark.parametrize(
    ("sets", "size", "shown"),
    [
        (((0, 1.5), (2,)), 3, "1.5"),
        (((0, 1.0), (2,)), 3, "1.0"),
        (((0, True), (2,)), 3, "True"),
        (((0, 1), (2,)), 3.0, "3.0"),
    ],
)
def test_indices_that_are_no_ints_raise(sets, size, shown: str) -> None:
    with pytest.raises(TypeError, match=f"holds {shown}; allowed: ints, the size and"):
        jaxreg.Overlap(sets, size)


def test_indices_may_be_those_of_numpy() -> None:
    overlap = jaxreg.Overlap(np.array([[0, 1], [1, 2]]), size=np.int32(3))
    assert overlap.groups == ((0, 1), (1, 2))


def test_no_groups_raise() -> None:
    with pytest.raises(ValueError, match="there are no groups; allowed: at least one"):
        jaxreg.Overlap((), 0)


def test_a_latent_or_entries_of_another_shape_raise() -> None:
    with pytest.raises(ValueError, match=r"Overlap.duplicate: shape \(7,\)"):
        OVERLAP.duplicate(jnp.ones(7))
    with pytest.raises(ValueError, match=r"Overlap.merge: shape \(4, 3\)"):
        OVERLAP.merge(jnp.ones((4, 3)))
