"""The reach of a NaN in a prox: all that it couples, and no further."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg

LEAF = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("f4")


@pytest.mark.parametrize(
    ("penalty", "coupled"),
    [
        (jaxreg.L1(0.1), np.s_[1, 2, 1]),
        (jaxreg.GroupLasso(0.1, group_axis=(0, 2)), np.s_[1, :, 1]),
        (jaxreg.L1Ball(0.5, group_axis=(0, 2)), np.s_[1, :, 1]),
        (jaxreg.NM(1, 2, axis=1), np.s_[1, 2:4, 1]),
        (jaxreg.TotalVariation(0.1, axis=1), np.s_[1, :, 1]),
        (jaxreg.NuclearNorm(0.1, stacked=1), np.s_[1]),
        (jaxreg.TopK(count=3, stacked=1), np.s_[1]),
        (jaxreg.Simplex(), np.s_[:]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("entry", [np.nan, -np.inf])
def test_a_nan_spreads_over_what_the_prox_couples(penalty, coupled, entry) -> None:
    out = penalty.prox(jnp.asarray(LEAF).at[1, 2, 1].set(entry), 1.0)
    is_coupled = np.zeros(LEAF.shape, bool)
    is_coupled[coupled] = True
    np.testing.assert_array_equal(~np.isfinite(out), is_coupled)
