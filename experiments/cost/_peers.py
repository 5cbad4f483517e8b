"""The loops and libraries that `prox_cost` times jaxreg against.

It needs numba and jaxopt, so only a measurement imports it. A reference is what a user
would write or call, and takes and returns a NumPy array.
"""

import warnings
from typing import Any

import jax
import numba
import numpy as np
import optax
from scipy import optimize

with warnings.catch_warnings():
    # On every import it warns that it is no longer maintained.
    warnings.filterwarnings("ignore", "JAXopt is no longer", DeprecationWarning)
    from jaxopt import projection


def _soft_threshold(entries: Any, threshold: Any) -> Any:
    out = np.empty_like(entries)
    for index in numba.prange(entries.size):
        entry = entries[index]
        out[index] = entry - min(max(entry, -threshold), threshold)
    return out


def _total_variation(entries: Any, strength: float) -> Any:
    """Condat's direct algorithm (2013), one pass with restarts.

    `start` opens the current segment; `low` and `high` bound its value, and the dual
    variable at `index` would be `dual_low` or `dual_high` with that value.
    """
    size = entries.size
    out = np.empty_like(entries)
    index = start = last_low = last_high = 0
    low, high = entries[0] - strength, entries[0] + strength
    dual_low, dual_high = strength, -strength
    while True:
        is_end = index == size - 1
        after = entries[index] if is_end else entries[index + 1]
        falls = dual_low < 0.0 if is_end else after + dual_low < low - strength
        climbs = dual_high > 0.0 if is_end else after + dual_high > high + strength
        if falls:
            out[start : last_low + 1] = low
            index = start = last_low = last_low + 1
            low, dual_low = entries[index], strength
            if is_end:
                dual_high = low + strength - high
            else:
                last_high, high, dual_high = index, low + 2 * strength, -strength
        elif climbs:
            out[start : last_high + 1] = high
            index = start = last_high = last_high + 1
            high, dual_high = entries[index], -strength
            if is_end:
                dual_low = high - strength - low
            else:
                last_low, low, dual_low = index, high - 2 * strength, strength
        elif is_end:
            out[start:] = low + dual_low / (size - start)
            return out
        else:
            index += 1
            dual_low += after - low
            dual_high += after - high
            if dual_low >= strength:
                low += (dual_low - strength) / (index - start + 1)
                dual_low, last_low = strength, index
            if dual_high <= -strength:
                high += (dual_high + strength) / (index - start + 1)
                dual_high, last_high = -strength, index


soft_threshold: Any = numba.njit(parallel=True)(_soft_threshold)
total_variation: Any = numba.njit(_total_variation)
L1_BALLS: dict[str, Any] = {
    "optax.projections": jax.jit(optax.projections.projection_l1_ball),
    "jaxopt.projection": jax.jit(projection.projection_l1_ball),
}


def top_k(entries: np.ndarray, count: int) -> np.ndarray:
    """The partition of the magnitudes at the `count` largest."""
    return np.partition(np.abs(entries), entries.size - count)


def slope(entries: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """NumPy's sort and SciPy's isotonic regression."""
    order = np.argsort(-np.abs(entries))
    pooled = optimize.isotonic_regression(
        np.abs(entries)[order] - strengths, increasing=False
    ).x
    out = np.empty_like(entries)
    out[order] = np.maximum(pooled, 0)
    return np.copysign(out, entries)


def total_variation_error(
    entries: np.ndarray, answer: np.ndarray, strength: float
) -> float:
    """Violation of the optimality conditions by the dual of an answer, over strength.

    `u = cumsum(entries - answer)` must end at 0, stay within the strength, and be at
    minus or plus the strength where the answer rises or falls.
    """
    answer = answer.astype(np.float64)
    dual = np.cumsum(entries - answer) / strength
    side = np.sign(np.diff(answer))
    outside = np.maximum(np.abs(dual[:-1]) - 1, 0)
    off = np.where(side != 0, np.abs(dual[:-1] + side), 0)
    return float(max(abs(dual[-1]), outside.max(), off.max()))
