"""Both sides of step_cost compute the same; step_bandwidth counts the words moved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cost import step_bandwidth, step_cost
from experiments.cost._steps import WAYS, step_of


@pytest.mark.slow
@pytest.mark.parametrize("way", step_cost.BY_HAND)
def test_what_is_written_by_hand_does_what_the_way_does(way):
    keys = jax.random.split(jax.random.key(0), 3)
    start = [0.05 * jax.random.normal(keys[0], (6, 8)).at[1].set(1e-6)]
    if "L2Ball" in way:
        start = [40.0 * leaf for leaf in start]
    ends = []
    for make in (WAYS[way], step_cost.BY_HAND[way]):
        tx = make()
        step = jax.jit(step_of(tx))
        params, state = start, tx.init(start)
        for key in keys[1:]:
            grads = [1e-3 * jax.random.normal(key, leaf.shape) for leaf in params]
            params, state = step(params, state, grads)
        ends.append(np.asarray(params[0]))
    assert np.any(ends[0] != np.asarray(start[0]))
    np.testing.assert_allclose(*ends, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "way, arrays",
    [
        # p and g are read, p is written.
        ("prox_sgd, L1", 3),
        # mu and nu are read and written as well.
        ("adamw", 7),
        # And the latent.
        ("regularize(adam), L1", 9),
    ],
)
def test_least_words_are_inputs_and_outputs_once(way, arrays):
    params, size = [jnp.ones((10, 10))], 100
    tx = WAYS[way]()
    found = step_bandwidth.least_words(step_of(tx), params, tx.init(params), params)
    # Beside counts and the like.
    assert 0 <= found - arrays * size < 10


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_least_words_are_the_arguments_and_results_in_xla(way):
    params = [jnp.ones((40, 50))]
    tx = WAYS[way]()
    inputs = params, tx.init(params), params
    held = jax.jit(step_of(tx)).lower(*inputs).compile().memory_analysis()
    counted = held.argument_size_in_bytes + held.output_size_in_bytes
    words = step_bandwidth.least_words(step_of(tx), *inputs)
    # The tuple of results has a pointer for each.
    pointers = 8 * len(jax.tree.leaves(inputs[:2]))
    assert words == pytest.approx((counted - pointers) / 4, abs=8)


def test_what_a_step_passes_on_is_not_written():
    def step(params, state, grads):
        return params - grads, state

    unused, params = jnp.ones(7), jnp.ones(5)
    assert step_bandwidth.least_words(step, params, unused, params) == 15
