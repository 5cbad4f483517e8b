"""Laws of every penalty under `regularize`, for every row of the table."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from jaxreg._core.constraint import Constraint
from jaxreg.calculus.spectral import MatrixPenalty
from tests.laws.row import Leaves, Row, cast
from tests.laws.table import convex_rows, prox_rows, rows_where
from tests.support.training import train

STEPS = 3000

jump_rows = rows_where(
    lambda row: row.has_prox and not row.is_convex and not row.is_constraint
)


def run(row: Row, start: Any, target: Leaves) -> Any:
    """Minimises `|w - target|^2 / 2 + penalty` by Adam inside `regularize`."""
    rate = optax.cosine_decay_schedule(0.05, STEPS)
    tx = jaxreg.regularize(optax.adam(rate), row.penalty, width=0.5)

    def grads_of(w: Any) -> Any:
        return jax.tree.map(lambda leaf, goal: leaf - goal, w, target)

    return train(tx, grads_of, start, STEPS)[0]


@convex_rows
def test_regularize_minimises_loss_plus_penalty(row: Row) -> None:
    target = row.params(0)
    with jax.enable_x64(True):
        start = jax.tree.map(jnp.asarray, row.params(1))
        found = run(row, start, jax.tree.map(jnp.asarray, target))
        # The loss is half a squared distance: the minimiser is the prox at step 1.
        expected = row.penalty.prox(target, 1.0)
        for name, leaf in expected.items():
            # Adam's last steps of a cosine that ends at 0.
            np.testing.assert_allclose(found[name], leaf, atol=1e-6)
            # Of a matrix penalty singular values become zero; that an entry does is a
            # matter of how the machine's SVD rounds.
            if not isinstance(row.penalty, Constraint | MatrixPenalty):
                np.testing.assert_array_equal(found[name] == 0, leaf == 0)


def first_params(row: Row, params: Any, width: float) -> Any:
    """Parameters after an update in which the optimizer does not move."""
    tx = jaxreg.regularize(optax.sgd(0.0), row.penalty, width=width)
    nothing = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(tx.update)(nothing, tx.init(params), params)
    return optax.apply_updates(params, updates)


@jump_rows
@pytest.mark.parametrize("width", [0.05, 0.5])
def test_no_penalty_zeroes_a_fresh_kernel_at_the_first_update(
    row: Row, width: float
) -> None:
    fresh = jax.tree.map(lambda leaf: 0.05 * leaf, cast(row.params(0), np.float32))
    found = first_params(row, fresh, width)
    for name, leaf in fresh.items():
        np.testing.assert_array_equal(np.asarray(found[name]) == 0, leaf == 0)


@prox_rows
def test_what_the_prox_returned_stays_at_the_first_update(row: Row) -> None:
    # JAX 0.10 reuses the buffer of a closed-over float64 array after x64 is off again.
    row = dataclasses.replace(row, penalty=jax.tree.map(np.float32, row.penalty))
    v = cast(row.params(0), np.float32)
    step = row.step_for(0.5, v)
    params = row.penalty.prox(v, step)
    found = first_params(row, params, 0.5)
    for name, leaf in params.items():
        size = np.max(np.abs(v[name]), initial=1.0)
        # The latent is rounded once, and the prox of what it holds once more.
        np.testing.assert_allclose(found[name], leaf, atol=2e-6 * row.rounding * size)
