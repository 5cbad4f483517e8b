"""Families of losses of a linear predictor: negative log-likelihoods and deviances."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core.messages import shown
from jaxreg._core.ranges import is_known, real_array

Losses = Callable[[jax.Array, Any], jax.Array]
"""From a predictor, shape (samples, ...), and a response to one loss per sample."""


def _gaussian(predictor: jax.Array, y: jax.Array) -> jax.Array:
    return _over_outputs((predictor - y) ** 2 / 2)


def _binomial(predictor: jax.Array, y: jax.Array) -> jax.Array:
    return _over_outputs(jax.nn.softplus(predictor) - y * predictor)


def _poisson(predictor: jax.Array, y: jax.Array) -> jax.Array:
    return _over_outputs(jnp.exp(predictor) - y * predictor)


def _multinomial(predictor: jax.Array, y: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(predictor, axis=-1) - jnp.sum(y * predictor, axis=-1)


def _over_outputs(losses: jax.Array) -> jax.Array:
    return jnp.sum(losses.reshape(losses.shape[0], -1), axis=1)


def _entropy(y: jax.Array) -> jax.Array:
    return -_over_outputs(jax.scipy.special.xlogy(y, y))


@dataclasses.dataclass(frozen=True)
class Family:
    """The losses of samples, and what they are at a perfect fit."""

    losses: Losses
    saturated: Callable[[Any], jax.Array] = lambda y: jnp.zeros(len(y))

    def mean(self, predictor: jax.Array, y: Any, weights: jax.Array) -> jax.Array:
        """The weighted mean of the losses."""
        losses = self.losses(predictor, y)
        # A sample left out may have a loss that is not finite.
        losses = jnp.where(weights > 0, losses, 0)
        return jnp.sum(weights * losses) / jnp.sum(weights)

    def deviance(self, predictor: jax.Array, y: Any, weights: jax.Array) -> jax.Array:
        """Twice the mean loss above that of a perfect fit."""
        least = jnp.sum(weights * self.saturated(y)) / jnp.sum(weights)
        return 2 * (self.mean(predictor, y, weights) - least)


class Cox(Family):
    """The partial likelihood of times until an event, ties by Breslow's rule."""

    def mean(self, predictor: jax.Array, y: Any, weights: jax.Array) -> jax.Array:
        """The mean over all samples of minus the log partial likelihood."""
        time, event = y
        order = jnp.argsort(-time)
        later = -time[order]
        # A sample of weight 0 is at no risk.
        risks = jnp.where(
            weights > 0, predictor + jnp.log(_positive(weights)), -jnp.inf
        )
        at_risk = jax.lax.cumlogsumexp(risks[order])
        last = jnp.searchsorted(later, -time, side="right") - 1
        losses = jnp.where((weights > 0) & (event > 0), at_risk[last] - predictor, 0)
        return jnp.sum(weights * event * losses) / jnp.sum(weights)


def _positive(weights: jax.Array) -> jax.Array:
    return jnp.where(weights > 0, weights, 1)


def _no_losses(predictor: jax.Array, y: Any) -> jax.Array:
    raise ValueError("the losses of cox are those of all samples together")


FAMILIES: dict[str, Family] = {
    "gaussian": Family(_gaussian),
    "binomial": Family(_binomial, lambda y: _entropy(y) + _entropy(1 - y)),
    "poisson": Family(_poisson, lambda y: _over_outputs(y) + _entropy(y)),
    "multinomial": Family(_multinomial, _entropy),
    "cox": Cox(_no_losses, lambda y: jnp.zeros(len(y[0]))),
}


# The largest response, where the least is 0, and what to say of it.
_RANGES = {
    "binomial": (1.0, "0 and 1, or shares between them"),
    "poisson": (math.inf, "counts >= 0"),
}


def family_of(family: str | Losses) -> Family:
    """The family of a name, or of a function of the user."""
    return FAMILIES[family] if isinstance(family, str) else Family(family)


def response(family: str | Losses, y: Any, samples: int) -> Any:
    """The response as the family takes it, after validation."""
    if family == "cox":
        return _survival(y, samples)
    if not isinstance(family, str):
        return jax.tree.map(jnp.asarray, y)
    y = real_array("linear: y", y)
    if y.ndim not in (1, 2) or len(y) != samples:
        raise ValueError(
            f"linear: y has shape {y.shape}, and x has {samples} samples; allowed: "
            f"({samples},), or ({samples}, outputs)"
        )
    if is_known(lambda y: ~jnp.isfinite(y), y):
        raise ValueError("linear: y holds numbers that are not finite")
    if family == "multinomial":
        return _shares(y)
    if family in _RANGES:
        largest, allowed = _RANGES[family]
        if is_known(lambda y: (y < 0) | (y > largest), y):
            raise ValueError(
                f"linear: y of family {family!r} has values from {float(jnp.min(y)):g} "
                f"to {float(jnp.max(y)):g}; allowed: {allowed}"
            )
    return y.astype(jnp.promote_types(y.dtype, jnp.float32))


def _shares(y: jax.Array) -> jax.Array:
    """One row of shares per sample; labels become rows with a single 1."""
    if y.ndim == 2:
        if is_known(
            lambda y: (y < 0) | (abs(jnp.sum(y, 1, keepdims=True) - 1) > 1e-5), y
        ):
            raise ValueError(
                "linear: y of family 'multinomial' has rows that are no shares; "
                "allowed: labels 0, 1, ..., or rows >= 0 that sum to 1"
            )
        return y.astype(jnp.promote_types(y.dtype, jnp.float32))
    if isinstance(y, jax.core.Tracer):
        raise TypeError(
            "linear: labels of family 'multinomial' are traced, so that the number of "
            "classes is unknown; pass jax.nn.one_hot(y, classes)"
        )
    if is_known(lambda y: (y < 0) | (y != jnp.round(y)), y):
        raise ValueError(
            f"linear: y of family 'multinomial' holds {shown(y)}; allowed: labels "
            "0, 1, ..., as numpy.unique(y, return_inverse=True)[1] gives"
        )
    return jax.nn.one_hot(y.astype(int), int(jnp.max(y)) + 1)


def _survival(y: Any, samples: int) -> tuple[jax.Array, jax.Array]:
    if (
        not isinstance(y, tuple | list)
        or len(y) != 2
        or any(jnp.shape(part) != (samples,) for part in y)
    ):
        raise ValueError(
            "linear: y of family 'cox' is a pair (time, event) of arrays of shape "
            f"({samples},), with event 1 where it was observed and 0 where censored"
        )
    if is_known(
        lambda time, event: ~jnp.isfinite(time) | ((event != 0) & (event != 1)), *y
    ):
        raise ValueError(
            "linear: y of family 'cox' holds a time that is not finite or an event "
            "that is neither 0 nor 1"
        )
    time, event = map(jnp.asarray, y)
    return time, event.astype(jnp.promote_types(time.dtype, jnp.float32))
