"""A solution of loss + penalty, exact in binary arithmetic, and runs that begin there.

The loss is half the squared distance to `TARGET`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg
from tests.support.training import train

STEPS = 20_000
# Of strength 0.25 and width 1/16 the prox step is 1/4.
STRENGTH, WIDTH = 0.25, 0.0625
RULES = [
    ("vector$", jaxreg.L1(STRENGTH)),
    ("rows$", jaxreg.GroupLasso(STRENGTH, group_axis=0)),
]
PENALTY = jaxreg.by_path(RULES)

_SIGNS = np.array([[1, -1, 1, 1], [1, 1, -1, 1], [-1, 1, 1, -1], [1, 1, 1, 1]])

TARGET = {
    "free": np.array([0.5, -1.0]),
    "rows": _SIGNS * np.array([[7.0], [2.0], [7.0], [0.0]]) / 16,
    "vector": np.array([2.0, -1.0, 0.125, -0.0625, 0.0]),
}
# Of a row the norm falls from 7/8 by 1/4 times the root of its size: to 3/8.
SOLUTION = {
    "free": TARGET["free"],
    "rows": _SIGNS * np.array([[3.0], [0.0], [3.0], [0.0]]) / 16,
    "vector": np.array([1.75, -0.75, 0.0, 0.0, 0.0]),
}


def as_arrays(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


def run(tx: Any, params: Any, state: Any, target: Any) -> Any:
    """Params and state after `STEPS` steps, compiled once for all targets."""
    targets = jax.tree.map(
        lambda goal: np.broadcast_to(goal, (STEPS, *goal.shape)), target
    )
    return train(tx, grads_of, params, as_arrays(targets), as_arrays(state))


def grads_of(params: Any, target: Any) -> Any:
    # Lookahead has its gradients at the fast one of two copies.
    point = params.fast if isinstance(params, optax.LookaheadParams) else params
    return jax.tree.map(jnp.subtract, point, target)


def distance(left: Any, right: Any) -> float:
    """The largest difference of two trees."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return max(float(np.max(np.abs(np.asarray(a) - b))) for a, b in pairs)


def assert_same_zeros(left: Any, right: Any) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(np.asarray(a) == 0, b == 0),
        left,
        right,
    )
