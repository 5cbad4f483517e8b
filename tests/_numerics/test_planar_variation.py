"""Total variation in two dimensions against a dual method in NumPy, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg

NOISE = np.random.default_rng(0).normal(size=(6, 8))
BLOCKS = np.kron(np.random.default_rng(1).normal(size=(2, 2)), np.ones((3, 4)))
PROX = jax.jit(lambda penalty, params, step: penalty.prox(params, step))


def by_dual_gradient(image: np.ndarray, threshold: float) -> np.ndarray:
    """Accelerated projected gradient on the duals, with restarts."""

    def primal(along_j, along_i):
        x = image.copy()
        x[:, 1:] -= along_j
        x[:, :-1] += along_j
        x[1:] -= along_i
        x[:-1] += along_i
        return x

    rows, columns = image.shape
    best = ahead = (np.zeros((rows, columns - 1)), np.zeros((rows - 1, columns)))
    momentum = 1.0
    for _ in range(20_000):
        x = primal(*ahead)
        # 8 bounds the squared norm of the differences.
        moved = [
            np.clip(dual + np.diff(x, axis=axis) / 8, -threshold, threshold)
            for dual, axis in zip(ahead, (1, 0), strict=True)
        ]
        turns = sum(
            np.sum((a - m) * (m - b))
            for a, m, b in zip(ahead, moved, best, strict=True)
        )
        new = 1.0 if turns > 0 else (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        share = 0.0 if turns > 0 else (momentum - 1) / new
        ahead = [m + share * (m - b) for m, b in zip(moved, best, strict=True)]
        change = max(abs(m - b).max() for m, b in zip(moved, best, strict=True))
        best, momentum = moved, new
        if change < 1e-14:
            break
    return primal(*best)


@pytest.mark.parametrize(
    "image", [NOISE, BLOCKS + 0.2 * NOISE], ids=["noise", "blocks"]
)
def test_the_prox_in_the_plane_is_that_of_the_dual_gradient(image: np.ndarray) -> None:
    images = np.stack([image] * 3, axis=-1)
    strengths = np.array([0.05, 0.4, 2.0])
    steps = jnp.asarray(strengths[None, None], jnp.float32)
    expected = np.stack([by_dual_gradient(image, s) for s in strengths], axis=-1)
    penalty = jaxreg.TotalVariation(1.0, axis=(0, 1))
    found = PROX(penalty, jnp.asarray(images, jnp.float32), steps)
    slack = penalty.facts.prox_tolerance * abs(image - image.mean()).max()
    # A tenth of what is stated.
    np.testing.assert_allclose(found, expected, atol=slack / 10)
    level = PROX(penalty, jnp.asarray(images + 512, jnp.float32), steps)
    # Half a unit of 512 beside it.
    np.testing.assert_allclose(level - 512, expected, atol=slack / 10 + 6e-5)


def test_one_line_is_total_variation_along_it() -> None:
    image = jnp.asarray(NOISE[:1], "f4")
    line, plane = (jaxreg.TotalVariation(0.4, axis) for axis in (1, (1, 0)))
    np.testing.assert_array_equal(plane.prox(image, 0.7), line.prox(image, 0.7))
    np.testing.assert_array_equal(plane.value(image), line.value(image))


def test_each_plane_has_its_own_scale_and_step() -> None:
    images = np.stack([NOISE] * 4).astype("f4")
    penalty, steps = jaxreg.TotalVariation(0.4, axis=(1, 2)), np.ones((4, 1, 1), "f4")
    alone = PROX(penalty, jnp.asarray(images), jnp.asarray(steps))
    images[1, 2, 3] = 1e6
    steps[2], steps[3] = 1e6, 0.0
    found = PROX(penalty, jnp.asarray(images), jnp.asarray(steps))
    np.testing.assert_array_equal(found[0], alone[0])
    # The limit of the iteration, in units of the largest entry.
    np.testing.assert_allclose(found[2], np.full((6, 8), NOISE.mean()), atol=1e-5)
    np.testing.assert_array_equal(found[3], images[3])


@pytest.mark.slow
def test_l1_in_the_plane_thresholds_the_variation() -> None:
    variation = jaxreg.TotalVariation(0.4, axis=(0, 1))
    fused = jaxreg.L1(0.2) + variation
    assert fused == jaxreg.FusedLasso(0.2, 0.4, axis=(0, 1))
    image = jnp.asarray(NOISE, "f4")
    flat = np.asarray(variation.prox(image, 0.7))
    expected = np.sign(flat) * np.maximum(abs(flat) - 0.14, 0)
    # Rounding of float32.
    np.testing.assert_allclose(fused.prox(image, 0.7), expected, atol=1e-6)


@pytest.mark.parametrize("axis", [(0, 0), (0, -2)])
def test_a_plane_of_one_axis_raises(axis: tuple[int, int]) -> None:
    penalty = jaxreg.TotalVariation(0.4, axis=axis)
    with pytest.raises(ValueError, match="names one twice"):
        penalty.value(jnp.asarray(NOISE))


def test_steps_that_vary_in_a_plane_raise() -> None:
    penalty = jaxreg.TotalVariation(0.4, axis=(0, 1))
    with pytest.raises(ValueError, match="varies among entries"):
        penalty.prox(jnp.asarray(NOISE), jnp.ones((6, 1)))
