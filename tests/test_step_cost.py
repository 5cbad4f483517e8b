"""What step_cost times is the same computation on both sides."""

import jax
import numpy as np
import pytest

from experiments import step_cost
from experiments._steps import step_of


@pytest.mark.slow
@pytest.mark.parametrize("way", step_cost.BY_HAND)
def test_what_is_written_by_hand_does_what_the_way_does(way):
    keys = jax.random.split(jax.random.key(0), 3)
    start = [0.05 * jax.random.normal(keys[0], (6, 8)).at[1].set(1e-6)]
    if "L2Ball" in way:
        start = [40.0 * leaf for leaf in start]
    ends = []
    for make in (step_cost.WAYS[way], step_cost.BY_HAND[way]):
        tx = make()
        step = jax.jit(step_of(tx))
        params, state = start, tx.init(start)
        for key in keys[1:]:
            grads = [1e-3 * jax.random.normal(key, leaf.shape) for leaf in params]
            params, state = step(params, state, grads)
        ends.append(np.asarray(params[0]))
    assert np.any(ends[0] != np.asarray(start[0]))
    np.testing.assert_allclose(*ends, rtol=1e-5, atol=1e-8)
