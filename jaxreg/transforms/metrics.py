"""The metrics of `proximal`: one for each kind of optimizer, and a check of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxreg.checks import is_known
from jaxreg.transforms.gains import (
    AdagradMetric,
    AdamaxMetric,
    AdamMetric,
    AdanMetric,
    AmsgradMetric,
    IdentityMetric,
    LambMetric,
    Metric,
    MomentumMetric,
    RmspropMetric,
    read_gains,
)

# Of very different sizes, as the gradients of a badly scaled problem are.
_GRADS = ([1.0, -0.03, 20.0, 1e-5], [[-0.5, 2.0]])


def identity_metric() -> Metric:
    """For plain gradients and averages of them (`optax.ema`): the gain is 1.

    >>> import optax, jaxreg
    >>> jaxreg.check_metric(optax.ema(0.9), jaxreg.identity_metric()) < 1e-3
    True
    """
    return IdentityMetric()


def momentum_metric(decay: float, metric: Metric | None = None) -> Metric:
    """For `optax.trace(decay)`, Nesterov or not: the gain is `1 / (1 - decay)`.

    `metric` is that of the rest of the direction, by which the gain is multiplied.

    Raises:
      ValueError: `decay` is not from 0 to below 1.

    >>> import optax, jaxreg
    >>> jaxreg.check_metric(optax.trace(0.9), jaxreg.momentum_metric(0.9)) < 1e-3
    True
    """
    if is_known(lambda x: (x < 0) | (x >= 1), decay):
        raise ValueError(
            f"momentum_metric: decay is {decay}; allowed: from 0 to below 1"
        )
    return MomentumMetric(decay, IdentityMetric() if metric is None else metric)


def adam_metric(b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0) -> Metric:
    """For `optax.scale_by_adam`: `1 / (sqrt(nu / (1 - b2^t) + eps_root) + eps)`.

    The momentum is an average, of gain 1: neither `b1` nor its correction enters.

    >>> import optax, jaxreg
    >>> jaxreg.check_metric(optax.scale_by_adam(), jaxreg.adam_metric()) < 1e-3
    True
    """
    return AdamMetric(b2, eps, eps_root)


def yogi_metric(b2: float = 0.999, eps: float = 1e-3, eps_root: float = 0.0) -> Metric:
    """For `optax.scale_by_yogi`: that of Adam, of Yogi's second moment.

    >>> import optax, jaxreg
    >>> jaxreg.check_metric(optax.scale_by_yogi(), jaxreg.yogi_metric()) < 1e-3
    True
    """
    return AdamMetric(b2, eps, eps_root)


def adan_metric(b3: float = 0.99, eps: float = 1e-8, eps_root: float = 0.0) -> Metric:
    """For `optax.scale_by_adan`: that of Adam, of Adan's second moment.

    `optax.adan` itself has `eps_root=1e-8`.

    >>> import optax, jaxreg
    >>> jaxreg.check_metric(optax.scale_by_adan(), jaxreg.adan_metric()) < 1e-3
    True
    """
    return AdanMetric(b3, eps, eps_root)


def amsgrad_metric(eps: float = 1e-8, eps_root: float = 0.0) -> Metric:
    """For `optax.scale_by_amsgrad`: `1 / (sqrt(nu_max + eps_root) + eps)`.

    >>> import optax, jaxreg
    >>> jaxreg.check_metric(optax.scale_by_amsgrad(), jaxreg.amsgrad_metric()) < 1e-3
    True
    """
    return AmsgradMetric(eps, eps_root)


def adamax_metric(eps: float = 1e-8) -> Metric:
    """For `optax.scale_by_adamax`: one over the largest recent gradient.

    >>> import optax, jaxreg
    >>> jaxreg.check_metric(optax.scale_by_adamax(), jaxreg.adamax_metric()) < 1e-3
    True
    """
    return AdamaxMetric(eps)


def rmsprop_metric(
    eps: float = 1e-8,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    decay: float | None = None,
) -> Metric:
    """For `optax.scale_by_rms`: `1 / sqrt(nu + eps)`, or `1 / (sqrt(nu) + eps)`.

    `centered` is for `optax.scale_by_stddev`, with `nu - mu^2` for nu; `decay` for a
    direction with `bias_correction=True`, the decay of that direction.

    >>> import optax, jaxreg
    >>> jaxreg.check_metric(optax.scale_by_rms(), jaxreg.rmsprop_metric()) < 1e-3
    True
    """
    return RmspropMetric(eps, eps_in_sqrt, centered, decay)


def adagrad_metric(eps: float = 1e-7) -> Metric:
    """For `optax.scale_by_rss`: `1 / sqrt(sum of squares + eps)`.

    >>> import optax, jaxreg
    >>> jaxreg.check_metric(optax.scale_by_rss(), jaxreg.adagrad_metric()) < 1e-3
    True
    """
    return AdagradMetric(eps)


def lamb_metric(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6, eps_root: float = 0.0
) -> Metric:
    """For `chain(optax.scale_by_adam(...), optax.scale_by_trust_ratio())`.

    Adam's gain times the trust ratio of the leaf. Decay between the two would enter the
    ratio; put it into the penalty.

    >>> import optax, jaxreg
    >>> lamb = optax.chain(optax.scale_by_adam(eps=1e-6), optax.scale_by_trust_ratio())
    >>> jaxreg.check_metric(lamb, jaxreg.lamb_metric()) < 1e-3
    True
    """
    return LambMetric(b1, b2, eps, eps_root)


def check_metric(
    direction: optax.GradientTransformation, metric: Metric, steps: int = 3000
) -> float:
    """Proves a metric: feeds a constant gradient and compares updates with gains.

    Returns:
      The largest relative error of `gain * gradient` as the update.

    Raises:
      ValueError: the error is above 1 %, as when the direction carries a learning rate
        (`optax.adam(1e-3)` in place of `optax.scale_by_adam()`), or the metric is that
        of another direction.

    >>> import optax, jaxreg
    >>> jaxreg.check_metric(optax.trace(0.9), jaxreg.momentum_metric(0.9)) < 1e-5
    True
    """
    check_metric_type("check_metric", metric)
    grads = tuple(jnp.asarray(grad) for grad in _GRADS)
    params = jax.tree.map(jnp.ones_like, grads)
    full = optax.with_extra_args_support(direction)

    def step(carry: Any, _: Any) -> Any:
        _, state = carry
        return full.update(grads, state, params), None

    start = (grads, full.init(params))
    (moves, state), _ = jax.lax.scan(step, start, length=steps)
    treedef = jax.tree.structure(params)
    gains = read_gains(metric, state, treedef, jax.tree.leaves(moves))
    errors = []
    for gain, grad, move in zip(gains, grads, moves, strict=True):
        errors.append(float(jnp.max(jnp.abs(move / (gain * grad) - 1))))
        if not errors[-1] <= 0.01:
            raise ValueError(
                f"check_metric: for the gradient {grad} the direction makes {move} and "
                f"{metric} says {gain * grad}. Allowed: a direction without learning "
                "rate or sign, as optax.scale_by_adam(), with the metric of its kind "
                "and the same arguments"
            )
    return max(errors)


def check_metric_type(caller: str, metric: Any) -> None:
    """Refuses what is no metric."""
    if not isinstance(metric, Metric):
        raise TypeError(
            f"{caller}: metric is {metric!r}; allowed: the gain of the direction, as "
            "jaxreg.adam_metric() for optax.scale_by_adam(), or "
            "jaxreg.identity_metric() for plain gradients"
        )
