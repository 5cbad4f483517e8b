"""The time of a forward pass: dense, sparse, and without dead units."""

import operator
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.experimental import sparse

from experiments.harness.contract import Row
from experiments.smaller_models import _lenet

_REPEATS = 10
# Each is compared with the dense network of the same library.
AGAINST = {
    "smaller_numpy": "dense_numpy",
    "csr_scipy": "dense_numpy",
    "smaller_csr_scipy": "dense_numpy",
    "smaller_jax": "dense_jax",
    "bcoo_jax": "dense_jax",
}


def calls(params: _lenet.Params, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Calls that compute the logits of a batch; sparse ones for dense layers alone.

    Each name ends with its library. All read the images as (samples, pixels); picking
    the pixels that the smaller network reads is part of its time.
    """
    small, read = _lenet.compact(params)
    pixels = np.flatnonzero(read) if x.shape[1] == len(read) else np.arange(x.shape[1])
    forward = jax.jit(_lenet.logits)
    images, kept = jnp.asarray(x), jnp.asarray(pixels)
    cut = jax.jit(lambda params, x, kept: _lenet.logits(params, x[:, kept]))
    large, small_jax = jax.tree.map(jnp.asarray, (params, small))
    in_jax = {
        "dense_jax": lambda: forward(large, images),
        "smaller_jax": lambda: cut(small_jax, images, kept),
    }
    if any(layer["kernel"].shape[0] > 1 for layer in params.values()):
        return in_jax
    rows, few = _transposed(params), _transposed(small)
    csr = [(scipy.sparse.csr_array(k), b) for k, b in rows]
    few_csr = [(scipy.sparse.csr_array(k), b) for k, b in few]
    coo = [(sparse.BCOO.fromdense(jnp.asarray(k)), jnp.asarray(b)) for k, b in rows]
    product = jax.jit(_columns)
    return in_jax | {
        "dense_numpy": lambda: _columns(rows, x, np.maximum),
        "smaller_numpy": lambda: _columns(few, x[:, pixels], np.maximum),
        "csr_scipy": lambda: _columns(csr, x, np.maximum),
        "smaller_csr_scipy": lambda: _columns(few_csr, x[:, pixels], np.maximum),
        "bcoo_jax": lambda: product(coo, images),
    }


def _transposed(params: _lenet.Params) -> list[tuple[np.ndarray, np.ndarray]]:
    """A matrix with a row per output, and a column of biases, of each layer."""
    layers = params.values()
    pairs = [(np.asarray(a["kernel"])[0].T, np.asarray(a["bias"])) for a in layers]
    return [(np.ascontiguousarray(k), b[:, None]) for k, b in pairs]


def _columns(layers: Any, x: Any, maximum: Any = jnp.maximum) -> Any:
    """The logits; inside, samples are columns, as sparse matrices want them."""
    values = x.T
    for matrix, bias in layers[:-1]:
        values = maximum(matrix @ values + bias, 0)
    matrix, bias = layers[-1]
    return (matrix @ values + bias).T


def microseconds(calls: dict[str, Callable[[], Any]], rounds: int) -> Row:
    """Medians over interleaved rounds: the time of a call, and its ratio to dense."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            jax.block_until_ready(call())
            start = time.perf_counter()
            for _ in range(_REPEATS):
                jax.block_until_ready(call())
            spent = time.perf_counter() - start
            times[name].append(1e6 * spent / _REPEATS)
    medians = {name: statistics.median(spent) for name, spent in times.items()}
    ratios = {
        f"ratio_{name}": statistics.median(map(operator.truediv, times[name], dense))
        for name, dense in ((n, times[AGAINST[n]]) for n in AGAINST if n in times)
    }
    return medians | ratios
