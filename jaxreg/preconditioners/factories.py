"""The preconditioners of `proximal`, one per kind of optimizer, and a check."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.groups import check_count
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Tree
from jaxreg._core.ranges import check_number, check_share
from jaxreg.preconditioners.from_state import (
    AdagradPreconditioner,
    AdamaxPreconditioner,
    AdamPreconditioner,
    AdanPreconditioner,
    AmsgradPreconditioner,
    IdentityPreconditioner,
    LambPreconditioner,
    MomentumPreconditioner,
    Preconditioner,
    RmspropPreconditioner,
    read_preconditioner,
)

# Sizes over six decades, as in a badly scaled problem; 1e-5 shows a wrong `eps_root`.
_GRADS = ([1.0, -0.03, 20.0, 1e-5], [[-0.5, 2.0]])


_Carry = tuple[Tree, optax.OptState]
"""Updates and state of a direction."""


def identity() -> Preconditioner:
    """For plain gradients and averages of them (`optax.ema`): 1 for every entry.

    >>> import optax
    >>> from jaxreg import preconditioners
    >>> preconditioners.check(optax.ema(0.9), preconditioners.identity()) < 1e-3
    True
    """
    return IdentityPreconditioner()


def momentum(
    decay: float, preconditioner: Preconditioner | None = None
) -> Preconditioner:
    """For `optax.trace(decay)`, Nesterov or not: `1 / (1 - decay)`.

    `preconditioner` is that of the rest of the direction; the result is their product.

    Raises:
      ValueError: `decay` is not from 0 to below 1.

    >>> import optax
    >>> from jaxreg import preconditioners
    >>> preconditioners.check(optax.trace(0.9), preconditioners.momentum(0.9)) < 1e-3
    True
    """
    check_share("momentum: decay", decay)
    if preconditioner is None:
        return MomentumPreconditioner(decay, IdentityPreconditioner())
    check_type("momentum", preconditioner)
    return MomentumPreconditioner(decay, preconditioner)


def adam(b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0) -> Preconditioner:
    """For `optax.scale_by_adam`: `1 / (sqrt(nu / (1 - b2^t) + eps_root) + eps)`.

    The momentum is an average, which keeps a constant gradient: `b1` does not enter.

    >>> import optax
    >>> from jaxreg import preconditioners
    >>> preconditioners.check(optax.scale_by_adam(), preconditioners.adam()) < 1e-3
    True
    """
    check_share("adam: b2", b2)
    check_number("adam: eps", eps)
    check_number("adam: eps_root", eps_root)
    return AdamPreconditioner(b2, eps, eps_root)


def yogi(b2: float = 0.999, eps: float = 1e-3, eps_root: float = 0.0) -> Preconditioner:
    """For `optax.scale_by_yogi`: Adam's formula with Yogi's second moment.

    >>> import optax
    >>> from jaxreg import preconditioners
    >>> preconditioners.check(optax.scale_by_yogi(), preconditioners.yogi()) < 1e-3
    True
    """
    check_share("yogi: b2", b2)
    check_number("yogi: eps", eps)
    check_number("yogi: eps_root", eps_root)
    return AdamPreconditioner(b2, eps, eps_root)


def adan(b3: float = 0.99, eps: float = 1e-8, eps_root: float = 0.0) -> Preconditioner:
    """For `optax.scale_by_adan`: Adam's formula with Adan's second moment.

    The default of `optax.adan` is `eps_root=1e-8`.

    >>> import optax
    >>> from jaxreg import preconditioners
    >>> preconditioners.check(optax.scale_by_adan(), preconditioners.adan()) < 1e-3
    True
    """
    check_share("adan: b3", b3)
    check_number("adan: eps", eps)
    check_number("adan: eps_root", eps_root)
    return AdanPreconditioner(b3, eps, eps_root)


def amsgrad(eps: float = 1e-8, eps_root: float = 0.0) -> Preconditioner:
    """For `optax.scale_by_amsgrad`: `1 / (sqrt(nu_max + eps_root) + eps)`.

    >>> import optax
    >>> from jaxreg import preconditioners
    >>> amsgrad = preconditioners.amsgrad()
    >>> preconditioners.check(optax.scale_by_amsgrad(), amsgrad) < 1e-3
    True
    """
    check_number("amsgrad: eps", eps)
    check_number("amsgrad: eps_root", eps_root)
    return AmsgradPreconditioner(eps, eps_root)


def adamax(eps: float = 1e-8) -> Preconditioner:
    """For `optax.scale_by_adamax`: `1 / nu`, with nu the largest recent gradient.

    >>> import optax
    >>> from jaxreg import preconditioners
    >>> preconditioners.check(optax.scale_by_adamax(), preconditioners.adamax()) < 1e-3
    True
    """
    check_number("adamax: eps", eps)
    return AdamaxPreconditioner(eps)


def rmsprop(
    eps: float = 1e-8,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    decay: float | None = None,
) -> Preconditioner:
    """For `optax.scale_by_rms`: `1 / sqrt(nu + eps)`, or `1 / (sqrt(nu) + eps)`.

    `centered` is for `optax.scale_by_stddev`, which has `nu - mu^2` in place of nu.
    `decay` is that of a direction with `bias_correction=True`, else None.

    >>> import optax
    >>> from jaxreg import preconditioners
    >>> preconditioners.check(optax.scale_by_rms(), preconditioners.rmsprop()) < 1e-3
    True
    """
    check_number("rmsprop: eps", eps)
    if decay is not None:
        check_share("rmsprop: decay", decay)
    return RmspropPreconditioner(eps, eps_in_sqrt, centered, decay)


def adagrad(eps: float = 1e-7) -> Preconditioner:
    """For `optax.scale_by_rss`: `1 / sqrt(sum of squares + eps)`.

    >>> import optax
    >>> from jaxreg import preconditioners
    >>> preconditioners.check(optax.scale_by_rss(), preconditioners.adagrad()) < 1e-3
    True
    """
    check_number("adagrad: eps", eps)
    return AdagradPreconditioner(eps)


def lamb(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6, eps_root: float = 0.0
) -> Preconditioner:
    """For `chain(optax.scale_by_adam(...), optax.scale_by_trust_ratio())`.

    It is Adam's preconditioner times the trust ratio of the leaf. Weight decay between
    the two would enter the ratio; put it in the penalty.

    >>> import optax
    >>> from jaxreg import preconditioners
    >>> lamb = optax.chain(optax.scale_by_adam(eps=1e-6), optax.scale_by_trust_ratio())
    >>> preconditioners.check(lamb, preconditioners.lamb()) < 1e-3
    True
    """
    check_share("lamb: b1", b1)
    check_share("lamb: b2", b2)
    check_number("lamb: eps", eps)
    check_number("lamb: eps_root", eps_root)
    return LambPreconditioner(b1, b2, eps, eps_root)


def check(
    direction: optax.GradientTransformation,
    preconditioner: Preconditioner,
    steps: int = 3000,
) -> float:
    """Feeds a constant gradient and compares the updates with the preconditioner.

    Returns:
      The largest relative error of `preconditioner * gradient` as the update.

    Raises:
      ValueError: the error is above 1 %, as when the direction carries a learning rate
        (`optax.adam(1e-3)` in place of `optax.scale_by_adam()`), or the preconditioner
        is that of another direction.

    >>> import optax
    >>> from jaxreg import preconditioners
    >>> preconditioners.check(optax.trace(0.9), preconditioners.momentum(0.9)) < 1e-5
    True
    """
    check_direction("preconditioners.check", direction)
    check_type("preconditioners.check", preconditioner)
    check_count("preconditioners.check: steps", steps, least=1)
    grads = tuple(jnp.asarray(grad) for grad in _GRADS)
    params = jax.tree.map(jnp.ones_like, grads)
    full = optax.with_extra_args_support(direction)

    def step(carry: _Carry, _: None) -> tuple[_Carry, None]:
        _, state = carry
        return full.update(grads, state, params), None

    start = (grads, full.init(params))
    (updates, state), _ = jax.lax.scan(step, start, length=steps)
    treedef = jax.tree.structure(params)
    leaves = jax.tree.leaves(updates)
    values = read_preconditioner(preconditioner, state, treedef, leaves)
    errors = []
    for value, grad, update in zip(values, grads, updates, strict=True):
        errors.append(float(jnp.max(jnp.abs(update / (value * grad) - 1))))
        if not errors[-1] <= 0.01:
            raise ValueError(
                f"preconditioners.check: for the gradient {grad} the direction gives "
                f"{update} and {preconditioner} predicts {value * grad}. Allowed: a "
                "direction without learning rate or sign, as optax.scale_by_adam(), "
                "with the preconditioner of its kind and the same arguments"
            )
    return max(errors)


def check_type(caller: str, preconditioner: object) -> None:
    """Raises a TypeError if `preconditioner` is not a `Preconditioner`."""
    if not isinstance(preconditioner, Preconditioner):
        raise TypeError(
            f"{caller}: preconditioner is {shown(preconditioner)}; allowed: that of "
            "the direction, as jaxreg.preconditioners.adam() for "
            "optax.scale_by_adam(), or jaxreg.preconditioners.identity() for plain "
            "gradients"
        )


def check_direction(caller: str, direction: object) -> None:
    """Raises a TypeError if `direction` is not an Optax transformation."""
    if not isinstance(direction, optax.GradientTransformation):
        raise TypeError(
            f"{caller}: direction is {shown(direction)}; allowed: an Optax "
            "transformation without a learning rate, as optax.scale_by_adam()"
        )
