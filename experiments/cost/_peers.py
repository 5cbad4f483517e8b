"""The loops and libraries that `prox_cost` times jaxreg against.

Needs numba and jaxopt, so that nothing but a measurement imports it. A reference is
what a user would write or call, and takes and returns a NumPy array.
"""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numba
import numpy as np
import optax
from scipy import optimize

with warnings.catch_warnings():
    # It says of itself, on every import, that it is no longer maintained.
    warnings.filterwarnings("ignore", "JAXopt is no longer", DeprecationWarning)
    from jaxopt import projection


def _soft_threshold(given: Any, threshold: Any) -> Any:
    out = np.empty_like(given)
    for place in numba.prange(given.size):
        entry = given[place]
        out[place] = entry - min(max(entry, -threshold), threshold)
    return out


def _total_variation(given: Any, strength: float) -> Any:
    """Condat's direct algorithm (2013), one pass with restarts.

    `start` opens the segment at hand; `low` and `high` bound its value, and the dual
    variable at `place` would be `dual_low` or `dual_high` with that value.
    """
    size = given.size
    out = np.empty_like(given)
    place = start = last_low = last_high = 0
    low, high = given[0] - strength, given[0] + strength
    dual_low, dual_high = strength, -strength
    while True:
        is_end = place == size - 1
        after = given[place] if is_end else given[place + 1]
        falls = dual_low < 0.0 if is_end else after + dual_low < low - strength
        climbs = dual_high > 0.0 if is_end else after + dual_high > high + strength
        if falls:
            out[start : last_low + 1] = low
            place = start = last_low = last_low + 1
            low, dual_low = given[place], strength
            if is_end:
                dual_high = low + strength - high
            else:
                last_high, high, dual_high = place, low + 2 * strength, -strength
        elif climbs:
            out[start : last_high + 1] = high
            place = start = last_high = last_high + 1
            high, dual_high = given[place], -strength
            if is_end:
                dual_low = high - strength - low
            else:
                last_low, low, dual_low = place, high - 2 * strength, strength
        elif is_end:
            out[start:] = low + dual_low / (size - start)
            return out
        else:
            place += 1
            dual_low += after - low
            dual_high += after - high
            if dual_low >= strength:
                low += (dual_low - strength) / (place - start + 1)
                dual_low, last_low = strength, place
            if dual_high <= -strength:
                high += (dual_high + strength) / (place - start + 1)
                dual_high, last_high = -strength, place


soft_threshold: Any = numba.njit(parallel=True)(_soft_threshold)
total_variation: Any = numba.njit(_total_variation)
L1_BALLS: dict[str, Any] = {
    "optax.projections": jax.jit(optax.projections.projection_l1_ball),
    "jaxopt.projection": jax.jit(projection.projection_l1_ball),
}


def top_k(given: np.ndarray, count: int) -> np.ndarray:
    """The partition alone: the magnitude above which `count` entries lie is in it."""
    return np.partition(np.abs(given), given.size - count)


def slope(given: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """NumPy's sort and SciPy's isotonic regression."""
    order = np.argsort(-np.abs(given))
    pooled = optimize.isotonic_regression(
        np.abs(given)[order] - strengths, increasing=False
    ).x
    out = np.empty_like(given)
    out[order] = np.maximum(pooled, 0)
    return np.copysign(out, given)


def total_variation_error(
    given: np.ndarray, found: np.ndarray, strength: float
) -> float:
    """How far the dual of an answer is from the optimality conditions, over strength.

    `u = cumsum(given - found)` must end at 0, stay within the strength, and be at
    minus or plus the strength where the answer rises or falls.
    """
    found = found.astype(np.float64)
    dual = np.cumsum(given - found) / strength
    side = np.sign(np.diff(found))
    outside = np.maximum(np.abs(dual[:-1]) - 1, 0)
    off = np.where(side != 0, np.abs(dual[:-1] + side), 0)
    return float(max(abs(dual[-1]), outside.max(), off.max()))
