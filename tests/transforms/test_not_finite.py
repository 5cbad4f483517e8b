"""One infinite entry of a gradient, under every transformation that takes it on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from experiments.kit.transformations import (
    TRANSFORMATIONS,
    Family,
    Needs,
    Settings,
    Transformation,
)

PENALTIES = {
    "L1": jaxreg.L1(0.1),
    "GroupLasso": jaxreg.GroupLasso(0.1, group_axis=0),
    "NuclearNorm": jaxreg.NuclearNorm(0.1),
    "L1Ball": jaxreg.L1Ball(20.0),
    "Simplex": jaxreg.Simplex(20.0),
}
PARAMS = np.random.default_rng(0).uniform(1.0, 2.0, (4, 3)).astype("f4")

# All of them take a minute, most of it compiling.
IN_DEFAULT_RUN = ("project", "prox_sgd")


def takes(row: Transformation, penalty: jaxreg.Penalty) -> bool:
    is_constraint = penalty.facts.stationarity_kind == "residual"
    return {
        Needs.ANY: not is_constraint,
        Needs.PROX: True,
        Needs.STEPS_PER_ENTRY: penalty.facts.varying_step,
        Needs.CONVEX: True,
        Needs.ZEROS: penalty.facts.zeros is not None,
        Needs.WEIGHTS: penalty.facts.zeros is not None,
        Needs.GROUPS: penalty.facts.zeros == "units",
        Needs.CONSTRAINT: is_constraint,
    }[row.needs]


@pytest.mark.parametrize(
    ("way", "name"),
    [
        pytest.param(way, name, marks=[] if way in IN_DEFAULT_RUN else pytest.mark.slow)
        for way, row in TRANSFORMATIONS.items()
        for name, penalty in PENALTIES.items()
        if takes(row, penalty)
    ],
)
def test_an_infinite_gradient_makes_no_zero(way: str, name: str) -> None:
    row = TRANSFORMATIONS[way]
    # Adam makes NaN of an infinity at once. A proximal method has its own direction.
    inner = None if row.family is Family.PROXIMAL else optax.sgd
    tx = row.optimizer(PENALTIES[name], Settings(inner=inner))
    update, start = jax.jit(tx.update), jnp.asarray(PARAMS)
    for entry in (1.0, np.inf, -np.inf):
        params, state = start, tx.init(start)
        for grads in (start.at[1, 2].set(entry), start):
            updates, state = update(grads, state, params)
            params = optax.apply_updates(params, updates)
            assert np.all(params), entry
            assert np.isfinite(params[1, 2]) == np.isfinite(entry)
