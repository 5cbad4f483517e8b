"""Optax's optimizers, with the same arguments, followed by the prox of a penalty."""

from __future__ import annotations

from collections.abc import Callable

import optax
from jax.typing import DTypeLike

from jaxreg._core.penalty import Number, Penalty, Tree
from jaxreg._core.ranges import check_number, check_share
from jaxreg.preconditioners import factories as preconditioners
from jaxreg.transforms._leaves import Schedule
from jaxreg.transforms.proximal import proximal


def prox_sgd(
    learning_rate: Number | Schedule,
    penalty: Penalty,
    momentum: float | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    *,
    schedule: Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`optax.sgd` with the prox of a penalty: minimises loss + penalty.

    The arguments are those of `optax.sgd`, and `schedule` as in `proximal`. An
    accumulator in half precision makes the strength wrong by some per cent:
    `docs/what_no_transform_can_see.md` has the errors.

    Reference: Combettes and Wajs 2005, Signal recovery by proximal forward-backward
    splitting.

    >>> import jax.numpy as jnp, jaxreg
    >>> tx = jaxreg.prox_sgd(0.25, jaxreg.L1(1.0))
    >>> w = jnp.array([1.0, 0.125])
    >>> tx.update(jnp.zeros(2), tx.init(w), w)[0]
    Array([-0.25 , -0.125], dtype=float32)
    """
    if momentum is None:
        direction, preconditioner = optax.identity(), preconditioners.identity()
    else:
        check_share("prox_sgd: momentum", momentum)
        direction = optax.trace(momentum, nesterov, accumulator_dtype)
        preconditioner = preconditioners.momentum(momentum)
    return proximal(
        direction,
        learning_rate,
        penalty,
        preconditioner=preconditioner,
        schedule=schedule,
    )


def prox_adam(
    learning_rate: Number | Schedule,
    penalty: Penalty,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    schedule: Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`optax.adam` with the prox of a penalty in Adam's metric.

    It minimises loss + penalty; the arguments are those of `optax.adam`, and `schedule`
    as in `proximal`. The penalty needs a prox for steps that differ between entries.
    An average in half precision makes the strength wrong by some per cent, as in
    `prox_sgd`.

    Reference: Yun, Lozano and Yang 2021, Adaptive proximal gradient methods for
    structured neural networks, arXiv 2110.10404.

    >>> import jax.numpy as jnp, jaxreg
    >>> tx = jaxreg.prox_adam(0.01, jaxreg.L1(0.5))
    >>> w = jnp.array([1.0, 1.0])
    >>> u, _ = tx.update(jnp.array([1.0, -0.1]), tx.init(w), w)
    >>> print(f"{u[0]:.4f} {u[1]:.4f}")
    -0.0150 -0.0400
    """
    _check_adam("prox_adam", b1, b2, eps, eps_root)
    return proximal(
        optax.scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        learning_rate,
        penalty,
        preconditioner=preconditioners.adam(b2, eps, eps_root),
        schedule=schedule,
    )


def prox_adamw(
    learning_rate: Number | Schedule,
    penalty: Penalty,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: float = 1e-4,
    mask: Tree | Callable[[Tree], Tree] | None = None,
    *,
    nesterov: bool = False,
    schedule: Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`optax.adamw` with the prox of a penalty in Adam's metric.

    Its fixed points balance loss, penalty and AdamW's decoupled decay, which is no L2
    penalty: to minimise loss + penalty + L2 use `prox_adam` with `ElasticNet`. The
    arguments are those of `optax.adamw`, and `schedule` as in `proximal`.

    Reference: as `prox_adam`; Loshchilov and Hutter 2019, Decoupled weight decay
    regularization.

    >>> import jax.numpy as jnp, jaxreg
    >>> tx = jaxreg.prox_adamw(0.01, jaxreg.L1(0.5), weight_decay=0.1)
    >>> w = jnp.array([1.0, 1.0])
    >>> u, _ = tx.update(jnp.array([1.0, -0.1]), tx.init(w), w)
    >>> print(f"{u[0]:.4f} {u[1]:.4f}")
    -0.0160 -0.0410
    """
    _check_adam("prox_adamw", b1, b2, eps, eps_root)
    check_number("prox_adamw: weight_decay", weight_decay)
    adam = optax.scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    return proximal(
        optax.chain(adam, optax.add_decayed_weights(weight_decay, mask)),
        learning_rate,
        penalty,
        preconditioner=preconditioners.adam(b2, eps, eps_root),
        schedule=schedule,
    )


def prox_rmsprop(
    learning_rate: Number | Schedule,
    penalty: Penalty,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    schedule: Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`optax.rmsprop` with the prox of a penalty in its metric.

    It minimises loss + penalty; the arguments are those of `optax.rmsprop`, and
    `schedule` as in `proximal`. `centered` steps, here as there, grow where gradients
    settle, and become NaN where float32 rounds their variance below `-eps`.

    Reference: as `prox_adam`.

    >>> import jax.numpy as jnp, jaxreg
    >>> tx = jaxreg.prox_rmsprop(0.01, jaxreg.L1(0.5), decay=0.75)
    >>> w = jnp.array([1.0, 1.0])
    >>> u, _ = tx.update(jnp.array([1.0, -0.1]), tx.init(w), w)
    >>> print(f"{u[0]:.4f} {u[1]:.4f}")
    -0.0300 -0.0800
    """
    check_share("prox_rmsprop: decay", decay)
    check_number("prox_rmsprop: eps", eps)
    check_number("prox_rmsprop: initial_scale", initial_scale)
    scale = optax.scale_by_stddev if centered else optax.scale_by_rms
    direction = scale(decay, eps, initial_scale, eps_in_sqrt, bias_correction)
    preconditioner = preconditioners.rmsprop(
        eps, eps_in_sqrt, centered, decay if bias_correction else None
    )
    if momentum is not None:
        check_share("prox_rmsprop: momentum", momentum)
        direction = optax.chain(direction, optax.trace(momentum, nesterov))
        preconditioner = preconditioners.momentum(momentum, preconditioner)
    return proximal(
        direction,
        learning_rate,
        penalty,
        preconditioner=preconditioner,
        schedule=schedule,
    )


def prox_adagrad(
    learning_rate: Number | Schedule,
    penalty: Penalty,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
    *,
    schedule: Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`optax.adagrad` with the prox of a penalty in its metric.

    It minimises loss + penalty; the arguments are those of `optax.adagrad`, and
    `schedule` as in `proximal`.

    Reference: Duchi, Hazan and Singer 2011, Adaptive subgradient methods for online
    learning and stochastic optimization, section 5 (composite mirror descent).

    >>> import jax.numpy as jnp, jaxreg
    >>> tx = jaxreg.prox_adagrad(0.01, jaxreg.L1(0.5), initial_accumulator_value=3.0)
    >>> w = jnp.array([1.0, 1.0])
    >>> u, _ = tx.update(jnp.array([1.0, -1.0]), tx.init(w), w)
    >>> print(f"{u[0]:.4f} {u[1]:.4f}")
    -0.0075 0.0025
    """
    check_number("prox_adagrad: initial_accumulator_value", initial_accumulator_value)
    check_number("prox_adagrad: eps", eps)
    return proximal(
        optax.scale_by_rss(initial_accumulator_value, eps),
        learning_rate,
        penalty,
        preconditioner=preconditioners.adagrad(eps),
        schedule=schedule,
    )


def _check_adam(
    optimizer: str, b1: Number, b2: Number, eps: Number, eps_root: Number
) -> None:
    """Raises if a number of Adam is out of range."""
    check_share(f"{optimizer}: b1", b1)
    check_share(f"{optimizer}: b2", b2)
    check_number(f"{optimizer}: eps", eps)
    check_number(f"{optimizer}: eps_root", eps_root)
