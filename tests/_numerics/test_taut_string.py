"""The taut string by convex hulls agrees with the sequential scan."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg
from jaxreg._numerics import taut_string as _taut_string
from jaxreg._numerics.isotonic import segment_sums

SIZE = 60


def _lines(kind: str, generator: np.random.Generator) -> list[np.ndarray]:
    """Values, weights and bounds of a few lines, end to end."""
    values = {
        "noise": generator.normal(size=SIZE),
        "ties": generator.integers(-2, 3, SIZE) / 2,
        "walk": np.cumsum(generator.normal(size=SIZE)),
        "ramps": np.abs(np.linspace(-1, 1, SIZE)),
    }[kind]
    decades = generator.choice([0, 2, 6]) * generator.uniform(-0.5, 0.5, SIZE)
    weights = 10 ** (generator.uniform(-1, 2) + decades)
    weights[generator.random(SIZE) < 0.1] = _taut_string._FIXED
    bounds = np.ones(SIZE)
    bounds[[*generator.integers(0, SIZE, 2), -1]] = 0
    return [array.astype(np.float32) for array in (values, weights, bounds)]


@functools.cache
def _string(visits: int) -> Callable[..., jax.Array]:
    """The slopes of the string, by a scan that may visit each entry so often."""

    def find(values, weights, bounds):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_taut_string, "_VISITS", visits)
            level, pull, begins = _taut_string._find_segments(
                values, weights, bounds, length=SIZE
            )
        excess = segment_sums(weights * (values - level[begins]), begins) + pull
        return (level + excess / segment_sums(weights, begins))[begins]

    return jax.jit(find)


@pytest.mark.parametrize("visits", [0, 1])
@pytest.mark.parametrize("kind", ["noise", "ties", "walk", "ramps"])
@pytest.mark.slow
def test_the_hulls_end_what_the_scan_began(kind: str, visits: int) -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        lines = _lines(kind, generator)
        hulls, scan = _string(visits)(*lines), _string(1000)(*lines)
        size = np.abs(lines[0]).max()
        np.testing.assert_allclose(hulls, scan, rtol=0, atol=3e-6 * size)


@pytest.mark.slow
def test_a_ramp_under_a_wide_tube_is_left_to_the_hulls() -> None:
    # The scan alone would go back some 6,000 places for each entry.
    size, strength = 100_000, np.float32(100)
    ramp = jnp.linspace(0, 1, size)
    # An end is flat up to the height at which `sum (height - ramp)` is the strength.
    height = np.sqrt(2 * strength / size)
    found = jaxreg.TotalVariation(strength, axis=0).prox(ramp, 1.0)
    ends = np.clip(ramp, height, 1 - height)
    np.testing.assert_allclose(found, ends, rtol=0, atol=1e-7 * strength)
